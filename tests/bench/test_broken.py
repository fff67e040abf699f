"""What the bench says of what does not work: that it broke, stays broken, or never worked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from starlette.testclient import TestClient
from tests.bench.made import run

from helexa.bench.api.app import Questions, bench_app
from helexa.bench.api.shapes import Page
from helexa.bench.build import report
from helexa.bench.report.answers import Series
from helexa.bench.report.text import to_markdown
from helexa.bench.settings import BenchSettings
from helexa.bench.store.store import Store


def get(client: TestClient, path: str, kind: Any, status: int = 200) -> Any:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    return msgspec.json.decode(answer.content, type=kind)


def test_what_does_not_work_at_all_any_more_is_a_regression(tmp_path: Path) -> None:
    path = tmp_path / "bench.sqlite"
    store = Store(path)
    store.add_many(run(1.0 + i, build="1.0+aaa") for i in range(5))
    store.add_many(
        run(9.0 + i, build="1.1+bbb", first=None, rate=None, ok=False, error="gone")
        for i in range(2)
    )
    store.close()
    client = TestClient(bench_app(Questions(path, BenchSettings(), "1")))
    for answer in (
        client.get("/api/regressions").json(),
        [client.get("/api/summary").json()[0]["verdict"]],
        client.get("/api/compare?a=1.0%2Baaa&b=1.1%2Bbbb").json()["cells"],
    ):
        assert [(v["word"], v["scenario"]) for v in answer] == [("broken", "chat:128")]


def test_what_is_broken_stays_broken_and_hides_nothing_when_it_works_again(tmp_path: Path) -> None:
    path = tmp_path / "bench.sqlite"
    store = Store(path)
    client = TestClient(bench_app(Questions(path, BenchSettings(), "1")))

    def verdicts() -> list[tuple[str, str, str]]:
        found = client.get("/api/regressions").json()
        return [(v["word"], v["old_build"], v["new_build"]) for v in found]

    store.add_many(run(1.0 + i, build="1.0+aaa", first=100.0 + i) for i in range(5))
    for at, build in ((19.0, "1.1+bbb"), (29.0, "1.2+ccc")):
        store.add(run(at, build=build, first=None, rate=None, ok=False, error="gone"))
        assert verdicts() == [("broken", "1.0+aaa", build)]
    store.add_many(run(40.0 + i, build="1.3+ddd", first=900.0 + i, rate=20.0) for i in range(5))
    store.close()
    assert verdicts() == [("slower", "1.0+aaa", "1.3+ddd")]
    assert "with 1.2" not in to_markdown(report(path))


def test_what_never_worked_is_told_build_after_build(tmp_path: Path) -> None:
    path = tmp_path / "bench.sqlite"
    store = Store(path)
    for at, build in ((9.0, "1.1+bbb"), (19.0, "1.2+ccc")):
        store.add(run(at, build=build, first=None, rate=None, ok=False, error="gone"))
    store.close()
    client = TestClient(bench_app(Questions(path, BenchSettings(), "1")))
    assert client.get("/api/regressions").json() == []  # nothing that has changed
    assert client.get("/api/summary").json()[0]["dead"]
    told = to_markdown(report(path))
    assert "## Failing\n\n- beast · m · chat:128: every run fails with 1.2+ccc\n" in told
    assert "**failing** every run fails" in told
    assert "No cell is known to be worse" not in told
    assert "cannot be judged" not in told
    assert "nothing to compare with" not in told


def test_a_trend_has_the_builds_of_which_every_run_failed(tmp_path: Path) -> None:
    path = tmp_path / "bench.sqlite"
    store = Store(path)
    store.add(run(1.0, build="1.0+aaa"))
    store.add(run(9.0, build="1.1+bbb", first=None, rate=None, ok=False, error="gone"))
    store.add(run(19.0, build="1.2+ccc", first=None, rate=None, ok=False, refused=1))
    store.close()
    client = TestClient(bench_app(Questions(path, BenchSettings(), "1")))
    (line,) = get(client, "/api/series?metric=decode_rate", list[Series])
    assert [point.label for point in line.points] == ["1.0+aaa"]
    assert [build.label for build in line.failed] == ["1.1+bbb"]  # the other one was only full


def test_answers_that_are_left_out_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "bench.sqlite"
    store = Store(path)
    store.add_many(
        run(float(i), target="old" if i < 5 else "new", scenario="capability:rhyme")
        for i in range(60)
    )
    store.close()
    client = TestClient(bench_app(Questions(path, BenchSettings(), "1")))
    page = get(client, "/api/capability", Page)
    assert (page.count, len(page.runs)) == (60, 50)
    page = get(client, "/api/capability?target=old", Page)
    assert (page.count, len(page.runs)) == (5, 5)


def test_a_build_that_was_only_refused_is_not_called_broken(tmp_path: Path) -> None:
    path = tmp_path / "bench.sqlite"
    store = Store(path)
    store.add(run(1.0, build="1.0+aaa"))
    store.add(
        run(9.0, build="1.1+bbb", first=None, rate=None, ok=False, error="refused", refused=1)
    )
    store.close()
    client = TestClient(bench_app(Questions(path, BenchSettings(), "1")))
    assert client.get("/api/regressions").json() == []
    assert client.get("/api/summary").json()[0]["verdict"]["word"] == "unsure"
