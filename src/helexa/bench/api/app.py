"""The routes of the bench: questions under ``/api``, the pages at ``/``.

Answers are computed in threads, each with its own read-only connection: a sweep that writes and a
reader that thinks do not wait for each other.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import BaseRoute, Route
from starlette.staticfiles import StaticFiles

from helexa.bench.api.kept import Kept
from helexa.bench.api.pages import NOT_BUILT
from helexa.bench.api.shapes import Compared, Dimensions, HealthAnswer, Page, shown
from helexa.bench.report import answers
from helexa.bench.report.overview import Overview, chosen, overview
from helexa.bench.row import Run
from helexa.bench.settings import BenchSettings
from helexa.bench.stats.verdict import Verdict
from helexa.bench.store.cell import METRICS, Cell
from helexa.bench.store.reader import Lines, Reader, RunFilter
from helexa.bench.store.schema import StoreError

HISTORY_BUILDS, SERIES_BUILDS, MOST_BUILDS = 12, 50, 500
PROBE_ANSWERS = 50
MOST_ID = (1 << 63) - 1  # SQLite's
LEAST_PACKED, PACKING = 10_000, 4
"""Bytes of an answer that are worth packing, and how hard: a fifth is left, and hardly less at
twice the time."""
PAGE_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": "default-src 'self'; img-src 'self' data:; "
    "object-src 'none'; base-uri 'none'",
    "x-content-type-options": "nosniff",
}
ASSET_HEADERS = {"cache-control": "public, max-age=31536000, immutable"}
"""An asset's name has its content's digest in it."""

_encode = msgspec.json.Encoder().encode


class WrongQuery(Exception):
    """A parameter that cannot be understood; the message names it."""


class NotThere(Exception):
    """What was asked for by its number does not exist; the message names it."""


class Questions:
    """Each route's answer; called in threads.

    Args:
        path: The store; it may come into being later.
    """

    def __init__(self, path: Path, settings: BenchSettings, version: str) -> None:
        self._path = path
        self._opened: tuple[tuple[int, int], Reader] | None = None
        self._show_host = settings.api.show_hosts
        self._version = version
        self._judged = Kept(self._judge, self._state)
        self._ways = Kept(lambda: self._histories(HISTORY_BUILDS), self._state)

    @property
    def reader(self) -> Reader:
        """Of the file that is there now: it may be new, or another one put in its place.

        As long as the one before is open its number is not given to another.
        """
        try:
            status = self._path.stat()
        except OSError:
            return Reader(self._path)  # which says what is wrong
        file, opened = (status.st_dev, status.st_ino), self._opened
        if opened is None or opened[0] != file:
            opened = self._opened = file, Reader(self._path)
        return opened[1]

    def health(self, _query: dict[str, str]) -> HealthAnswer:
        """Always answers: that there is no database is an answer."""
        try:
            return HealthAnswer("ok", self._version, self.reader.last_at())
        except StoreError as error:
            return HealthAnswer("no data", self._version, None, str(error))

    def dimensions(self, _query: dict[str, str]) -> Dimensions:
        """What can be asked for."""
        reader = self.reader
        found = reader.dimensions()
        return Dimensions(metrics=list(METRICS), updated=reader.updated(), **found)

    def overview(self, query: dict[str, str]) -> Overview:
        """What the first page shows: everything in short, and some of it whole."""
        ways = {(h.target, h.model, h.scenario): list(h.medians) for h in self._ways.get()}
        return overview(self._judged.get(), _lines(query), ways, show_host=self._show_host)

    def summary(self, query: dict[str, str]) -> list[answers.CellAnswer]:
        """The newest build of everything against the one before it, or a page of that."""
        found = self._judged.get()
        cells = chosen(found, _lines(query))
        start = int(_number(query, "offset", 0) or 0)
        limit = _number(query, "limit", None)
        end = None if limit is None else start + int(limit)
        return answers.summary(found, cells[start:end], show_host=self._show_host)

    def series(self, query: dict[str, str]) -> list[answers.Series]:
        """A metric over builds."""
        depth = min(int(_number(query, "builds", SERIES_BUILDS) or 1), MOST_BUILDS)
        cells = self.reader.latest_cells(_lines(query), depth)
        return answers.series(cells, _metric(query), show_host=self._show_host)

    def history(self, query: dict[str, str]) -> list[answers.History]:
        """How every cell's figure went over the newest builds."""
        depth = min(int(_number(query, "builds", HISTORY_BUILDS) or 1), SERIES_BUILDS)
        return self._ways.get() if depth == HISTORY_BUILDS else self._histories(depth)

    def runs(self, query: dict[str, str]) -> Page:
        """A page of runs."""
        where = RunFilter(
            target=query.get("target", ""),
            model=query.get("model", ""),
            scenario=query.get("scenario", ""),
            build=query.get("build", ""),
            ok=_flag(query, "ok"),
            since=_number(query, "since", None),
        )
        count, runs = self.reader.runs(
            where,
            sort=query.get("sort", "at"),
            descending=query.get("order", "desc") != "asc",
            limit=int(_number(query, "limit", 50) or 50),
            offset=int(_number(query, "offset", 0) or 0),
        )
        return Page(count, [shown(run, show_host=self._show_host) for run in runs])

    def run(self, query: dict[str, str]) -> Run:
        """One run, whole."""
        number = int(query["id"])
        run = self.reader.run(number) if number <= MOST_ID else None
        if run is None:
            raise NotThere(f"there is no run {query['id']}")
        return shown(run, show_host=self._show_host)

    def scaling(self, query: dict[str, str]) -> list[answers.Curve]:
        """Over prompt tokens."""
        return answers.scaling(self._newest(query), show_host=self._show_host)

    def concurrency(self, query: dict[str, str]) -> list[answers.Curve]:
        """Over streams at once."""
        return answers.concurrency(self._newest(query), show_host=self._show_host)

    def swap(self, query: dict[str, str]) -> list[answers.CellAnswer]:
        """What loading costs: cold and swap cells."""
        found = self._judged.get()
        wanted = Lines(query.get("target", ""), query.get("model", ""))
        loads = [c for c in chosen(found, wanted) if c.scenario in answers.LOADS]
        return answers.summary(found, loads, show_host=self._show_host)

    def capability(self, query: dict[str, str]) -> Page:
        """Texts of capability probes, newest first: some of each probe, and how many there are."""
        wanted = _only(query, "target", "model", "scenario")
        names = [s for s in self.reader.dimensions()["scenario"] if s.startswith("capability:")]
        if "scenario" in wanted:
            names = [name for name in names if name == wanted["scenario"]]
        found, count = [], 0
        for name in names:
            where = RunFilter(wanted.get("target", ""), wanted.get("model", ""), name)
            there, newest = self.reader.runs(where, limit=PROBE_ANSWERS)
            found += newest
            count += there
        found.sort(key=lambda run: -run.at)
        return Page(count, [shown(run, show_host=self._show_host) for run in found])

    def regressions(self, _query: dict[str, str]) -> list[Verdict]:
        """What has become slower."""
        return self._judged.get().worse

    def compare(self, query: dict[str, str]) -> Compared:
        """Two builds, or two targets."""
        a, b = query.get("a"), query.get("b")
        if not a or not b:
            raise WrongQuery("compare needs ?a= and ?b=: two builds or two targets")
        metric = _metric(query) if "metric" in query else None
        verdicts, alone = answers.compare(*answers.sides(self.reader, a, b), metric)
        return Compared(a, b, verdicts, alone)

    def _judge(self) -> answers.Judged:
        return answers.judged(self.reader.newest_cells())

    def _histories(self, depth: int) -> list[answers.History]:
        return answers.histories(self.reader.primary_samples(depth))

    def _state(self) -> object:
        return self.reader.state()

    def _newest(self, query: dict[str, str]) -> list[Cell]:
        return self.reader.newest_cells(Lines(query.get("target", ""), query.get("model", "")))


_NAMES = (
    "health", "dimensions", "summary", "series", "runs", "scaling", "concurrency", "swap",
    "capability", "regressions", "compare", "history", "overview",
)  # fmt: skip


def bench_app(questions: Questions) -> Starlette:
    """The whole application."""
    routes: list[BaseRoute] = [
        Route(f"/api/{name}", _route(getattr(questions, name))) for name in _NAMES
    ]
    routes.append(Route("/api/runs/{id:int}", _route(questions.run)))
    routes.append(Route("/api/{rest:path}", _unknown))
    return Starlette(routes=[*routes, *_pages()])


def _route(question: Callable[[dict[str, str]], object]) -> Callable[[Request], Any]:
    async def ask(request: Request) -> Response:
        query = {
            **dict(request.query_params),
            **{k: str(v) for k, v in request.path_params.items()},
        }
        try:
            packed = "gzip" in request.headers.get("accept-encoding", "")
            return await asyncio.to_thread(lambda: _answer(question(query), packed=packed))
        except WrongQuery as error:
            return _error(400, "invalid_query", str(error))
        except NotThere as error:
            return _error(404, "not_found", str(error))
        except StoreError as error:
            return _error(503, "no_data", str(error))

    return ask


async def _unknown(request: Request) -> Response:
    return _error(404, "not_found", f"there is no {request.url.path}; see /api/health")


def _pages() -> list[BaseRoute]:
    """The built pages; deep links get the same document. Without them: how to build them."""
    folder = Path(str(files("helexa.bench"))) / "web"
    index = folder / "index.html"

    async def page(_request: Request) -> Response:
        if not index.is_file():
            return HTMLResponse(NOT_BUILT)
        return FileResponse(index, headers=PAGE_HEADERS)

    async def asset(request: Request) -> Response:
        # Looked for when it is asked for: pages may be built while their server runs.
        if not (folder / "assets").is_dir():
            return _error(404, "not_found", "the pages are not built")
        static = StaticFiles(directory=folder / "assets")
        answer = await static.get_response(request.path_params["rest"], request.scope)
        answer.headers.update(ASSET_HEADERS)
        return answer

    return [Route("/assets/{rest:path}", asset), Route("/{rest:path}", page)]


def _answer(value: object, *, packed: bool) -> Response:
    """Made in a thread, all of it: megabytes of JSON would hold up the streams that are timed."""
    body, headers = _encode(value), {"vary": "accept-encoding"}
    if packed and len(body) >= LEAST_PACKED:
        body, headers["content-encoding"] = gzip.compress(body, PACKING), "gzip"
    return Response(body, 200, headers, "application/json")


def _json(status: int, value: object) -> Response:
    return Response(_encode(value), status, media_type="application/json")


def _error(status: int, code: str, message: str) -> Response:
    return _json(status, {"error": {"code": code, "message": message}})


def _only(query: dict[str, str], *names: str) -> dict[str, str]:
    return {name: query[name] for name in names if query.get(name)}


def _lines(query: dict[str, str]) -> Lines:
    return Lines(query.get("target", ""), query.get("model", ""), query.get("scenario", ""))


def _metric(query: dict[str, str]) -> str:
    metric = query.get("metric", "decode_rate")
    if metric not in METRICS:
        raise WrongQuery(f"metric: there is no {metric!r}; one of {', '.join(METRICS)}")
    return metric


def _number(query: dict[str, str], name: str, default: float | None) -> float | None:
    if name not in query:
        return default
    try:
        value = float(query[name])
    except ValueError:
        value = -1.0
    if not 0 <= value < 1e15:
        raise WrongQuery(f"{name}: {query[name]!r} is no number from 0 up")
    return value


def _flag(query: dict[str, str], name: str) -> bool | None:
    if name not in query:
        return None
    if query[name] not in ("true", "false", "1", "0"):
        raise WrongQuery(f"{name}: {query[name]!r} is neither true nor false")
    return query[name] in ("true", "1")
