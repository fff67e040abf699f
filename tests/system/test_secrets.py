"""Secrets appear in no log, no metric, no answer, no error and no crash dump.

A gateway with a secret of every kind goes through what can go wrong, as a process, and dies of a
signal in the end. Whatever it has written or said by then is searched.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from tests.neuron.system.conftest import SPARK, chat, end_with_tests, until
from tests.system.rig import CHAT, SECRET, CortexProcess, StartStack

IN_ENVIRONMENT = "sk-from-the-environment-6Qv"
HASHED = "sk-known-by-its-hash-8Zr"
PLAIN = "sk-in-the-file-3Tw"
WRONG = "sk-mistyped-by-a-client-5Yx"
PASSWORD = "the-databases-password-2Lk"
GIVEN = (IN_ENVIRONMENT, HASHED, PLAIN, WRONG, PASSWORD, SECRET)

CONFIG = f"""
[[entitlements.keys]]
key = "{PLAIN}"
account_id = "plain"
hard_cap = 40
[[entitlements.keys]]
key_env = "TEST_KEY_IN_ENVIRONMENT"
account_id = "environment"
models = ["none"]
[[entitlements.keys]]
key_sha256 = "{sha256(HASHED.encode()).hexdigest()}"
account_id = "hashed"
requests_per_minute = 1
"""


class Everything:
    """What a gateway has let out, by where."""

    def __init__(self) -> None:
        self.texts: dict[str, bytes] = {}

    def got(self, where: str, answer: httpx.Response) -> httpx.Response:
        head = "\n".join(f"{name}: {value}" for name, value in answer.headers.items())
        self.texts[f"{where} #{len(self.texts)}"] = head.encode() + answer.content
        return answer

    def places_of(self, secret: str) -> list[str]:
        digest = sha256(secret.encode()).hexdigest()
        return [
            where
            for where, text in self.texts.items()
            # The ledger is where digests are kept, and nowhere else.
            if secret.encode() in text or (digest.encode() in text and "/ledger.db" not in where)
        ]


@pytest.fixture
def everything() -> Everything:
    return Everything()


def test_secrets_are_in_nothing_that_a_gateway_lets_out(
    start_stack: StartStack, everything: Everything, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_KEY_IN_ENVIRONMENT", IN_ENVIRONMENT)
    monkeypatch.setenv("PYTHONFAULTHANDLER", "1")
    stack = start_stack(f"[entitlements]\nrequire_auth = true\n{CONFIG}", debug=True)
    cortex, node = stack.cortex, stack.node
    made = lifecycle(cortex.url, everything)

    for secret in (*GIVEN, *made):
        for value in (f"Bearer {secret}", secret, f"Basic {secret}"):
            headers = {"authorization": value, "x-api-key": secret}
            with httpx.Client(base_url=cortex.url, headers=headers, timeout=60) as client:
                wander(client, everything)
    node.stop(signal.SIGKILL)
    until(lambda: httpx.get(f"{cortex.url}/health", timeout=60).json()["status"] != "ok")
    with httpx.Client(base_url=cortex.url, headers={"x-api-key": HASHED}, timeout=60) as client:
        everything.got("no node", client.post(CHAT, json=chat("Hi")))
    everything.got("metrics", httpx.get(cortex.ready["metrics_url"], timeout=60))
    limits = Path(f"/proc/{cortex.pid}/limits").read_text()
    core = next(line.split() for line in limits.splitlines() if "core file" in line)
    assert core[4] == "0"
    everything.texts["arguments"] = Path(f"/proc/{cortex.pid}/cmdline").read_bytes()
    assert cortex.stop(signal.SIGABRT) == -signal.SIGABRT

    log = (cortex.folder / "log").read_bytes()
    assert b"Fatal Python error: Aborted" in log
    for folder in (cortex.folder, node.folder):
        for file in folder.rglob("*"):
            if file.is_file() and not file.name.endswith(("cortex.toml", "neuron.toml")):
                everything.texts[str(file)] = file.read_bytes()
    for secret in (*GIVEN, *made):
        assert everything.places_of(secret) == []


def lifecycle(url: str, everything: Everything) -> list[str]:
    """Make, rotate and revoke keys; returns the secrets. Their own answers are not searched."""
    secrets = []
    with httpx.Client(base_url=url, headers={"x-api-key": "sk-root"}, timeout=60) as admin:
        for name in ("one", "two"):
            made = admin.post("/admin/keys", json={"account_id": "acme", "key_id": name}).json()
            secrets.append(made["secret"])
            rotated = admin.post(f"/admin/keys/{name}/rotate", json={"grace_secs": 60}).json()
            secrets.append(rotated["secret"])
        everything.got("revoke", admin.post("/admin/keys/two/revoke"))
        everything.got(
            "twice", admin.post("/admin/keys", json={"account_id": "a", "key_id": "one"})
        )
        everything.got("capture", admin.post("/admin/capture", json={"model": SPARK}))
        for path in ("keys", "keys/one", "accounts", "grants", "usage", "usage/requests",
                     "fleet", "requests"):  # fmt: skip
            everything.got(path, admin.get(f"/admin/{path}"))
    return secrets


def wander(client: httpx.Client, everything: Everything) -> None:
    """Ask for all kinds of things, right and wrong."""
    for path in ("/v1/models", "/v1/usage", "/admin/keys", "/v1/requests/none", "/nowhere", "/ui"):
        everything.got(path, client.get(path))
    everything.got("plain", client.post(CHAT, json=chat("Hi", max_tokens=4)))
    everything.got("stream", client.post(CHAT, json=chat("Hi", max_tokens=4, stream=True)))
    everything.got("messages", client.post("/v1/messages", json=chat("Hi", max_tokens=4)))
    everything.got("cold", client.post(CHAT, json=chat("Hi", model="no/such")))
    everything.got("broken", client.post(CHAT, content=b"{"))
    everything.got("claude", client.get("/v1/models", headers={"anthropic-version": "1"}))


@pytest.mark.parametrize(
    ("config", "environ"),
    [
        (f'[[entitlements.keys]]\nkey = "{PLAIN}\n', {}),
        (f'[[entitlements.keys]]\nkey = "{PLAIN}"\naccount_id = 7\n', {}),
        ("", {"CORTEX_ENTITLEMENTS__KEYS": json.dumps([{"key": PLAIN, "x": 1}])}),
        (f'[[neurons]]\nname = "n"\nendpoint = "http://me:{PASSWORD}@h"\n', {}),
        (f'[ledger]\nurl = "postgresql://me:{PASSWORD}@127.0.0.1:1/x"\n', {}),
        (f'[ledger]\nurl = "mysql://me:{PASSWORD}@127.0.0.1:1/x"\n', {}),
        (f'[gateway]\nlisten = "192.0.2.1:1"\n{CONFIG}', {"TEST_KEY_IN_ENVIRONMENT": PLAIN}),
    ],
)  # fmt: skip
def test_a_gateway_that_cannot_start_says_why_without_secrets(
    tmp_path: Path, config: str, environ: dict[str, str]
) -> None:
    file = tmp_path / "cortex.toml"
    file.write_text(config)
    done = subprocess.run(
        [sys.executable, "-m", "helexa.cli", "cortex", "--log-level", "debug",
         "--metrics-port", "0", "--config", str(file)],
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path), **environ},
        capture_output=True, timeout=60, check=False, preexec_fn=end_with_tests,
    )  # fmt: skip
    assert done.returncode in (2, 3), done.stderr
    assert done.stderr
    for secret in GIVEN:
        assert secret.encode() not in done.stdout + done.stderr


def test_a_bug_that_ends_the_gateway_is_logged_without_secrets(tmp_path: Path) -> None:
    program = """
from helexa.cortex.build import serve
from helexa.cli import cortex
def broken(settings, *_):
    secret, copy = settings.entitlements.keys[0].key.reveal(), settings
    raise RuntimeError("a bug")
serve.assemble = broken
cortex()
"""
    file = tmp_path / "cortex.toml"
    file.write_text(f'[[entitlements.keys]]\nkey = "{PLAIN}"\naccount_id = "a"\n')
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", program, "serve", "--log-level", "debug",
         "--port", "0", "--config", str(file)],
        capture_output=True, timeout=60, check=False, preexec_fn=end_with_tests,
        env={**os.environ, "XDG_STATE_HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1
    assert b"a bug" in done.stderr
    assert b"Traceback" in done.stderr
    assert PLAIN.encode() not in done.stdout + done.stderr


def test_commands_show_no_key_that_they_were_given(tmp_path: Path) -> None:
    cortex = CortexProcess(tmp_path, CONFIG.replace("TEST_KEY_IN_ENVIRONMENT", "PATH")).start()
    try:
        for words, key in (
            (("keys", "list"), WRONG),
            (("keys", "list"), f"{WRONG}\n"),
            (("keys", "list"), f"{WRONG}\nx: y"),
            (("status",), f"{WRONG}é"),
            (("keys", "show", f"sk-hx-{WRONG}"), WRONG),
        ):
            assert WRONG.encode() not in typed(words, cortex.url, key)
        assert WRONG.encode() not in (cortex.folder / "log").read_bytes()
    finally:
        cortex.stop()


def typed(words: tuple[str, ...], url: str, key: str) -> bytes:
    done = subprocess.run(
        [sys.executable, "-m", "helexa.cli", *words],
        env={"HELEXA_ENDPOINT": url, "HELEXA_KEY": key, "PATH": ""},
        capture_output=True, timeout=60, check=False,
    )  # fmt: skip
    return done.stdout + done.stderr


def test_the_tests_own_limits_would_let_a_core_be_written() -> None:
    """What the gateway sets is not merely what it has found."""
    assert resource.getrlimit(resource.RLIMIT_CORE)[1] != 0
