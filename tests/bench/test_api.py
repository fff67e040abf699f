from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.testclient import TestClient
from tests.bench.made import run

from helexa.bench.api.app import Questions, bench_app
from helexa.bench.api.kept import Kept
from helexa.bench.api.shapes import Compared, Dimensions, HealthAnswer, Page
from helexa.bench.report.answers import CellAnswer, Curve, History, Series
from helexa.bench.report.overview import Overview, drawn
from helexa.bench.row import Run
from helexa.bench.settings import ApiSettings, BenchSettings
from helexa.bench.stats.verdict import Verdict
from helexa.bench.store.cell import Cell
from helexa.bench.store.store import Store


def sweep(build: str, target: str, slower: float, at: float) -> list[Run]:
    """Five runs of every cell of a target."""
    chats = [
        run(
            at + i,
            target=target,
            build=build,
            scenario=f"chat:{size}",
            first=size * slower + i,
            rate=(50 - size / 500 - i / 10) / slower,
        )
        for i in range(5)
        for size in (128, 4096)
    ]
    crowds = [
        run(
            at + i,
            target=target,
            build=build,
            scenario=f"concurrency:{streams}",
            first=100.0 * streams + i,
            rate=None,
            throughput=50.0 * streams,
            concurrency=streams,
        )
        for i in range(5)
        for streams in (1, 2, 4)
    ]
    return chats + crowds


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "bench.sqlite"
    store = Store(path)
    for build, slower, at in (("1.0+aaa", 1.0, 100.0), ("1.1+bbb", 1.3, 200.0)):
        store.add_many(sweep(build, "beast", slower, at))
        store.add_many(sweep(build, "mini", 1.0, at))
        store.add_many(
            run(at + i, build=build, scenario="cold", load_ms=9000.0 * slower + i) for i in range(5)
        )
        store.add(run(at, build=build, scenario="capability:rhyme", artifact="Roses are red"))
    store.close()
    return path


@pytest.fixture
def client(path: Path) -> Iterator[TestClient]:
    with TestClient(bench_app(Questions(path, BenchSettings(), "1.1"))) as client:
        yield client


def get(client: TestClient, path: str, kind: Any, status: int = 200) -> Any:
    answer = client.get(path)
    assert answer.status_code == status, answer.text
    return msgspec.json.decode(answer.content, type=kind)


def test_health_says_when_the_newest_run_was(client: TestClient) -> None:
    health = get(client, "/api/health", HealthAnswer)
    assert (health.status, health.last_run_at) == ("ok", 204.0)


def test_dimensions_list_everything_builds_newest_first(client: TestClient) -> None:
    found = get(client, "/api/dimensions", Dimensions)
    assert found.build == ["1.1+bbb", "1.0+aaa"]
    assert found.target == ["beast", "mini"]
    assert "answer_ms" in found.metrics


def test_the_summary_compares_the_newest_build_with_the_one_before(client: TestClient) -> None:
    cells = get(client, "/api/summary?target=beast&scenario=chat:128", list[CellAnswer])
    (cell,) = cells
    assert cell.build == "1.1+bbb"
    assert cell.verdict is not None
    assert (cell.verdict.word, cell.verdict.old_build) == ("slower", "1.0+aaa")
    assert cell.metrics["first_token_ms"].n == 5


def test_regressions_are_the_slower_node_and_not_the_other(client: TestClient) -> None:
    found = get(client, "/api/regressions", list[Verdict])
    assert {verdict.target for verdict in found} == {"beast"}
    assert found[0].scenario == "everything"
    assert {verdict.scenario for verdict in found} >= {"chat:128", "chat:4096", "cold"}


def test_the_overview_says_in_columns_what_the_whole_answers_say(client: TestClient) -> None:
    found = get(client, "/api/overview", Overview)
    whole = get(client, "/api/summary", list[CellAnswer])
    names, cells = found.names, found.cells
    lines = [
        (names.target[t], names.model[m], names.scenario[s], names.build[b], names.primary[s], word)
        for t, m, s, b, word in zip(
            cells.target, cells.model, cells.scenario, cells.build, cells.word, strict=True
        )
    ]  # fmt: skip
    assert lines == [
        (c.target, c.model, c.scenario, c.build, c.primary, _word_of(c)) for c in whole
    ]
    firsts = found.rows.figures["first_token_ms"]
    assert firsts.median == [
        None if (s := c.metrics.get("first_token_ms")) is None else float(f"{s.median:.5g}")
        for c in whole
    ]
    histories = get(client, "/api/history", list[History])
    assert [len(way) for way in found.rows.ways] == [len(h.medians) for h in histories]
    worse = get(client, "/api/regressions", list[Verdict])
    assert (found.worse_count, found.worse) == (len(worse), worse[:6])


def _word_of(cell: CellAnswer) -> str:
    if cell.verdict is None:
        return "new"
    return cell.verdict.word if all(cell.verdict.samples) else "no figure"


def test_a_verdict_is_the_same_whatever_else_is_asked_for(client: TestClient) -> None:
    everything = {
        (c.target, c.scenario): c.verdict
        for c in get(client, "/api/summary", list[CellAnswer])
    }  # fmt: skip
    for query in ("target=beast", "target=beast&scenario=cold", "limit=3&offset=2"):
        some = get(client, f"/api/summary?{query}", list[CellAnswer])
        assert some
        assert [c.verdict for c in some] == [everything[c.target, c.scenario] for c in some]
    (cold,) = get(client, "/api/swap", list[CellAnswer])
    assert cold.verdict == everything["beast", "cold"]
    chosen = get(client, "/api/overview?target=mini", Overview)
    assert {chosen.names.target[t] for t in chosen.cells.target} == {"mini"}
    assert (chosen.worse_count, set(chosen.cells.word)) == (0, {"same"})


def test_of_very_many_cells_whole_targets_are_drawn_and_at_least_a_part_of_one() -> None:
    def cells(*counts: int) -> list[Cell]:
        key = ("m", "chat:1", "1.0", "neuron", "", "", "", "", "")
        rest: Any = (0.0, 0.0, 1, 0, 1, 0, 1, {})
        return [Cell(f"t{t}", *key, *rest) for t, count in enumerate(counts) for _ in range(count)]

    assert [len(drawn(cells(*counts), 10)) for counts in ((4, 6), (4, 5, 6), (11, 2), ())] == [
        10, 9, 10, 0,
    ]  # fmt: skip


def test_long_answers_are_packed_for_whoever_takes_them_so(client: TestClient, path: Path) -> None:
    with contextlib.closing(Store(path)) as store:
        store.add_many(run(400.0 + i, scenario=f"chat:{i}") for i in range(60))
    plain = client.get("/api/summary", headers={"accept-encoding": "identity"})
    packed = client.get("/api/summary", headers={"accept-encoding": "gzip"})
    assert "content-encoding" not in plain.headers
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.json() == plain.json()
    assert int(packed.headers["content-length"]) * 4 < int(plain.headers["content-length"])
    assert "content-encoding" not in client.get("/api/health").headers


def test_dimensions_name_the_last_update_that_was_measured(client: TestClient, path: Path) -> None:
    assert get(client, "/api/dimensions", Dimensions).updated == ("1.0+aaa", "1.1+bbb")
    with contextlib.closing(Store(path)) as store:
        store.add(run(900.0, target="new here", build="9.0"))
    assert get(client, "/api/dimensions", Dimensions).updated == ("1.0+aaa", "1.1+bbb")


def test_what_took_long_to_answer_is_kept_somewhat_longer_than_it_is_true() -> None:
    clock = {"now": 0.0, "spent": 0.0, "cost": 1.0, "state": 0.0, "made": 0.0}

    def make() -> float:
        clock["spent"] += clock["cost"]
        clock["made"] += 1
        return clock["state"]

    kept = Kept(make, lambda: clock["state"], lambda: clock["now"], lambda: clock["spent"])
    assert [kept.get(), kept.get()] == [0, 0]
    clock |= {"state": 1, "now": 19.0}  # a second of work: worth twenty
    assert (kept.get(), clock["made"]) == (0, 1)
    clock |= {"now": 20.0, "cost": 0.02}
    assert (kept.get(), clock["made"]) == (1, 2)
    clock["state"] = 2  # which took no time that would be worth keeping
    assert (kept.get(), clock["made"]) == (2, 3)


def test_series_go_over_builds_in_their_order(client: TestClient) -> None:
    path = "/api/series?target=mini&scenario=chat:128&metric=first_token_ms"
    (line,) = get(client, path, list[Series])
    assert [point.label for point in line.points] == ["1.0+aaa", "1.1+bbb"]
    assert not line.higher_is_better


def test_the_history_has_every_builds_median_and_a_gap_where_all_failed(
    client: TestClient, path: Path
) -> None:
    store = Store(path)
    store.add_many(run(300.0 + i, build="1.2+ccc", scenario="cold", ok=False) for i in range(3))
    store.close()
    found = get(client, "/api/history", list[History])
    ways = {(line.target, line.scenario): line.medians for line in found}
    assert ways["mini", "concurrency:2"] == (100.0, 100.0)
    assert [median and round(median) for median in ways["beast", "cold"]] == [9002, 11702, None]
    (cold,) = (
        line for line in get(client, "/api/history?builds=1", list[History])
        if line.scenario == "cold"
    )  # fmt: skip
    assert cold.medians == (None,)


def test_scaling_and_concurrency_are_curves_of_the_newest_build(client: TestClient) -> None:
    scaling = get(client, "/api/scaling?target=mini", list[Curve])
    assert [point.x for point in scaling[0].rate] == [128, 4096]
    assert scaling[0].flatness is not None
    assert -0.1 < scaling[0].flatness < 0
    (curve,) = get(client, "/api/concurrency?target=mini", list[Curve])
    assert (curve.knee, [point.x for point in curve.rate]) == (2, [1, 2, 4])


def test_swap_and_capability_have_pages_of_their_own(client: TestClient) -> None:
    (cold,) = get(client, "/api/swap", list[CellAnswer])
    assert cold.primary == "load_ms"
    page = get(client, "/api/capability", Page)
    assert {run.result.artifact for run in page.runs} == {"Roses are red"}


def test_runs_are_filtered_and_paged(client: TestClient) -> None:
    page = get(client, "/api/runs?target=mini&scenario=chat:128&limit=3&sort=first_token_ms", Page)
    assert (page.count, len(page.runs)) == (10, 3)
    one = client.get(f"/api/runs/{page.runs[0].id}").json()
    assert one["source"]["target"] == "mini"


def test_two_builds_or_two_targets_are_compared(client: TestClient) -> None:
    builds = get(client, "/api/compare?a=1.0%2Baaa&b=1.1%2Bbbb", Compared)
    assert {v.word for v in builds.cells if v.target == "mini"} == {"same"}
    assert {v.word for v in builds.cells if v.scenario == "cold"} == {"slower"}
    targets = get(client, "/api/compare?a=beast&b=mini", Compared)
    assert {v.word for v in targets.cells if v.scenario == "chat:128"} == {"faster"}
    assert {key.scenario for key in targets.alone} == {"cold", "capability:rhyme"}


def test_a_host_is_shown_by_its_hardware_and_never_by_its_name(
    client: TestClient, path: Path
) -> None:
    everything = "".join(
        client.get(f"/api/{name}").text for name in ("summary", "runs", "series", "swap", "scaling")
    )
    assert "2× RTX 5090" in everything
    assert "secret-host" not in everything
    assert "10.0.0.1" not in everything
    asked = BenchSettings(api=ApiSettings(show_hosts=True))
    with TestClient(bench_app(Questions(path, asked, "1"))) as open_client:
        assert "2× RTX 5090 (secret-host)" in open_client.get("/api/summary").text


@pytest.mark.parametrize(
    "query",
    ["series?metric=speed", "runs?limit=-1", "runs?ok=maybe", "runs?since=x", "compare?a=x"],
)  # fmt: skip
def test_a_query_that_makes_no_sense_is_refused_by_name(client: TestClient, query: str) -> None:
    answer = client.get(f"/api/{query}")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_query"


def test_an_unknown_route_of_the_api_is_json_and_404(client: TestClient) -> None:
    answer = client.get("/api/summery")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_without_a_database_the_api_says_what_to_do(tmp_path: Path) -> None:
    app = bench_app(Questions(tmp_path / "none", BenchSettings(), "1"))
    with TestClient(app) as client:
        assert client.get("/api/health").json()["status"] == "no data"
        answer = client.get("/api/summary")
        assert answer.status_code == 503
        assert "helexa bench once" in answer.json()["error"]["message"]


def test_a_database_that_comes_later_is_found(tmp_path: Path) -> None:
    path = tmp_path / "later.sqlite"
    with TestClient(bench_app(Questions(path, BenchSettings(), "1"))) as client:
        assert client.get("/api/summary").status_code == 503
        store = Store(path)
        store.add(run(1.0))
        store.close()
        assert len(client.get("/api/summary").json()) == 1


def test_a_database_that_is_put_in_the_place_of_another_is_read(tmp_path: Path) -> None:
    path, backup = tmp_path / "bench.sqlite", tmp_path / "backup.sqlite"
    for file, build in ((path, "2.0"), (backup, "1.0")):
        store = Store(file)
        store.add(run(1.0, build=build))
        store.close()
    with TestClient(bench_app(Questions(path, BenchSettings(), "1"))) as client:
        assert client.get("/api/dimensions").json()["build"] == ["2.0"]
        backup.rename(path)
        assert client.get("/api/dimensions").json()["build"] == ["1.0"]
        path.unlink()
        assert client.get("/api/summary").status_code == 503
        assert client.get("/api/health").json()["status"] == "no data"


def test_pages_that_are_built_while_their_server_runs_are_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("helexa.bench.api.app.files", lambda _package: tmp_path)
    with TestClient(bench_app(Questions(tmp_path / "none", BenchSettings(), "1"))) as client:
        assert "make web" in client.get("/").text
        assert client.get("/assets/index-abc.js").status_code == 404
        (tmp_path / "web" / "assets").mkdir(parents=True)
        (tmp_path / "web" / "index.html").write_text("<title>built</title>")
        (tmp_path / "web" / "assets" / "index-abc.js").write_text("export {}")
        page, asset = client.get("/trends"), client.get("/assets/index-abc.js")
        assert "built" in page.text
        assert "default-src 'self'" in page.headers["content-security-policy"]
        assert asset.headers["content-type"].startswith("text/javascript")
        assert "immutable" in asset.headers["cache-control"]
        gone = client.get("/assets/index-old.js")  # the name that a page of the build before has
        assert gone.status_code == 404
        assert "immutable" not in gone.headers.get("cache-control", "")
        assert client.get("/assets/../index.html").text == page.text
        assert client.get("/assets/%2e%2e/index.html").status_code == 404


def test_every_page_is_the_same_document_so_that_deep_links_work(client: TestClient) -> None:
    assert client.get("/").status_code == 200
    assert client.get("/trends/beast").text == client.get("/").text


def test_a_machine_is_not_named_by_what_went_wrong_there_either(tmp_path: Path) -> None:
    path = tmp_path / "bench.sqlite"
    store = Store(path)
    trouble = "POST http://10.0.0.1:13131/models/load answered 503: secret-host is full"
    store.add(run(1.0, ok=False, error=trouble, scenario="cold"))
    store.close()
    client = TestClient(bench_app(Questions(path, BenchSettings(), "1")))
    for question in ("/api/runs", "/api/runs/1"):
        said = client.get(question).text
        assert "10.0.0.1" not in said, said
        assert "secret-host" not in said
        assert "answered 503" in said


@pytest.mark.parametrize("number", ["999999", "9" * 30])
def test_a_run_that_does_not_exist_is_404_whatever_its_number(
    client: TestClient, number: str
) -> None:
    assert client.get(f"/api/runs/{number}").status_code == 404
