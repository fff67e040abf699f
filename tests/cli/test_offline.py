"""Keys and usage on the ledger itself, with no gateway anywhere."""

from __future__ import annotations

import csv
import io
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from helexa.cli.app import helexa
from helexa.cortex.ledger.database import connect, insert
from helexa.cortex.ledger.schema import migrate
from helexa.cortex.ledger.tables import STEPS

DAY_MS = 86_400_000
COLUMNS = ("request_id", "attempt", "life", "state", "at", "account_id", "key_id", "node", "model",
           "prompt", "completion", "cached", "reasoning")  # fmt: skip


class Ledger:
    """A ledger that no gateway uses, and a person at a terminal beside it."""

    def __init__(self, url: str) -> None:
        self.url = url
        db = connect(url)
        migrate(db, STEPS)
        db.close()

    def type(self, *words: str, status: int = 0) -> str:
        done = CliRunner().invoke(helexa, [*words, "--ledger", self.url])
        assert done.exit_code == status, done.output
        return done.stdout if status == 0 else done.stderr

    def json(self, *words: str) -> Any:
        return json.loads(self.type(*words, "--json"))

    def use(self, *rows: tuple[Any, ...]) -> None:
        db = connect(self.url)
        insert(db, f"INSERT INTO requests ({', '.join(COLUMNS)})", rows)
        db.close()


@pytest.fixture(params=["sqlite", "postgres"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Ledger:
    url = f"sqlite://{tmp_path}/ledger.db"
    return Ledger(url if request.param == "sqlite" else request.getfixturevalue("postgres_url"))


def test_keys_live_on_a_ledger_without_a_gateway(ledger: Ledger) -> None:
    secret = ledger.type("keys", "create", "acme", "--id", "ci", "--cap", "2m").strip()
    db = connect(ledger.url)
    assert db.execute("SELECT digest, prefix FROM secrets") == [
        (sha256(secret.encode()).hexdigest(), secret[:12])
    ]
    db.close()
    assert ledger.json("keys", "show", secret)["caps"][0]["tokens"] == 2_000_000
    other = ledger.type("keys", "rotate", "ci", "--grace", "1h").strip()
    assert ledger.json("keys", "show", "ci")["prefixes"] == [secret[:12], other[:12]]
    ledger.type("keys", "account", "acme", "--cap", "5m/30d")
    assert "5m/30d" in ledger.type("keys", "list")
    assert "revoked" in ledger.type("keys", "revoke", "ci")
    assert "has been revoked" in ledger.type("keys", "rotate", "ci", status=1)
    assert "There is no" in ledger.type("keys", "show", "nobody", status=1)


def test_usage_is_a_table_with_bars_csv_and_json(ledger: Ledger) -> None:
    ledger.use(
        ("r1", 1, 1, "settled", 20_000 * DAY_MS + 5, "acme", "ci", "n0", "org/m", 900, 100, 300, 0),
        ("r2", 1, 1, "settled", 20_001 * DAY_MS, "acme", "ci", "n1", "tiny", 50, 0, 0, 0),
        ("r3", 1, 1, "settled", 20_001 * DAY_MS + 9, "shop", "till", "n1", "m", 400, 100, 0, 50),
    )  # fmt: skip
    plain = ledger.type("usage").splitlines()
    assert plain[0].split() == ["key", "requests", "prompt", "cached", "completion", "total"]
    assert [line.split() for line in plain[1:4]] == [
        ["ci", "2", "950", "300", "100", "1,050"],
        ["till", "1", "400", "100", "500"],
        ["total", "3", "1,350", "300", "200", "1,550"],
    ]
    assert plain[4] == "1,550 tokens are of models without prices"
    charted = ledger.type("usage", "--by", "day,model", "--chart").splitlines()
    bars = [len(line) - len(line.rstrip("█▏▎▍▌▋▊▉#")) for line in charted[1:4]]
    assert bars[0] > bars[1] > bars[2] > 0
    assert [line.split()[0] for line in charted[1:4]] == ["2024-10-04", "2024-10-05", "2024-10-05"]
    rows = list(csv.DictReader(io.StringIO(ledger.type("usage", "--by", "account", "--csv"))))
    assert [(r["account"], r["total_tokens"], r["cost_usd"]) for r in rows] == [
        ("acme", "1050", ""),
        ("shop", "500", ""),
    ]
    report = ledger.json("usage", "--by", "node", "--since", "2024-10-05", "--account", "acme")
    assert [(r["node"], r["requests"]) for r in report["rows"]] == [("n1", 1)]
    assert ledger.type("usage", "--since", "1d") == "nothing was used\n"
    single = ledger.json("usage", "--requests", "--limit", "2")["requests"]
    assert [r["request_id"] for r in single] == ["r3", "r2"]
    assert "2024-10-04 00:00:00  r1" in ledger.type("usage", "--requests", "--model", "org/m")
    assert "org/m" in ledger.type("usage", "--requests", "--csv")


def test_what_is_no_ledger_is_refused_and_not_made(tmp_path: Path) -> None:
    for url, words in (
        (f"sqlite://{tmp_path}/none.db", "there is no ledger at"),
        ("mysql://me:hunter2@h/x", "is not a ledger"),
        ("postgresql://me:hunter2@127.0.0.1:1/x", "cannot be used"),
    ):
        done = CliRunner().invoke(helexa, ["keys", "list", "--ledger", url])
        assert done.exit_code == 1
        assert words in done.stderr
        assert "hunter2" not in done.stderr
    assert not list(tmp_path.iterdir())
    (tmp_path / "other.db").write_text("something else")
    done = CliRunner().invoke(helexa, ["usage", "--ledger", f"sqlite://{tmp_path}/other.db"])
    assert (done.exit_code, "cannot be" in done.stderr) == (1, True)


def test_a_keys_own_view_and_wrong_words_are_wrong_usage(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite://{tmp_path}/ledger.db")
    assert "needs a gateway" in ledger.type("usage", "--mine", status=2)
    assert "is not made of" in ledger.type("usage", "--by", "colour", status=2)
    assert "neither a date" in ledger.type("usage", "--since", "soon", status=2)
