"""The fake hub's HTTP server, in threads.

::

    GET  /api/models/<org>/<name>[/revision/<rev>]     information, with blobs
    GET  /api/models/<org>/<name>/tree/<rev>
    GET  /api/models?search=&author=
    GET, HEAD /<org>/<name>/resolve/<rev>/<file>       302 to the content, or a small file itself
    GET, HEAD /content/<tag>                           bytes; no token wanted here
"""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from helexa.neuron.sources.fake.repository import Content, Repositories

_INFO = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+?)(?:/revision/(?P<rev>.+))?")
_TREE = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<rev>[^/]+)")
_FILE = re.compile(r"/(?P<repo>[^/]+/[^/]+)/resolve/(?P<rev>[^/]+)/(?P<name>.+)")
_CONTENT = re.compile(r"/content/(?P<tag>[0-9a-f]+)")
_RANGE = re.compile(r"bytes=(?P<start>\d+)-(?P<last>\d*)")
_PIECE = 1 << 20


@dataclass
class Faults:
    """What goes wrong; change it at any time.

    Args:
        statuses: Answers to the next requests, instead of the right ones; 0 is the right one.
        retry_after_s: Sent with them.
        gated, private: Repositories that want ``token``.
        cut_after: Bytes after which the next contents break off, one entry per response.
        flipped: Contents, from now on, whose first byte is wrong.
        drip: Bytes per second of every content; None is as fast as it goes.
        ranges: Whether ranges are known.
        lists_digests: Whether information has sizes and digests.
        swap_at: Bytes after which the content that is being sent is replaced at the hub by
            ``swap_with`` and the connection breaks; once.
        blob_id, sha: What is said of every small file, and of the repository, instead of the
            truth.
    """

    statuses: deque[int] = field(default_factory=deque)
    retry_after_s: int | None = None
    token: str | None = None
    gated: set[str] = field(default_factory=set)
    private: set[str] = field(default_factory=set)
    cut_after: deque[int] = field(default_factory=deque)
    flipped: int = 0
    drip: int | None = None
    ranges: bool = True
    lists_digests: bool = True
    swap_at: int | None = None
    swap_with: bytes = b""
    blob_id: str | None = None
    sha: str | None = None


@dataclass
class Served:
    """What was asked for and sent.

    Args:
        requests: ``(method, path, Range header)`` in order.
        bytes: Of contents, by the name of their file.
        tokens: Authorization headers that contents were asked for with.
    """

    requests: list[tuple[str, str, str]] = field(default_factory=list)
    bytes: Counter[str] = field(default_factory=Counter)
    tokens: list[str] = field(default_factory=list)


class FakeHub:
    """A hub over ``root``, on loopback.

    Args:
        root: Folder of ``<org>/<name>/<files>``.
        port: 0 is any free one.
    """

    def __init__(self, root: Path, port: int = 0) -> None:
        self.repositories = Repositories(root)
        self.faults = Faults()
        self.served = Served()
        hub = self

        class Bound(_Handler):
            owner = hub

        self._server = _Server(("127.0.0.1", port), Bound)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), name="hub", daemon=True
        )

    @property
    def url(self) -> str:
        """Its endpoint."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> FakeHub:
        """Serve in threads until ``stop``."""
        self._thread.start()
        return self

    def stop(self) -> None:
        """End, with every connection; nobody listens there afterwards."""
        self.faults.drip = None
        self._server.shutdown()
        self._server.server_close()
        self._server.cut()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, *args: Any) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is nothing to print."""

    def cut(self) -> None:
        """Break every connection."""
        for one in list(self._open):
            try:
                one.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    owner: FakeHub

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """The log is ``Served``."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        url = urlsplit(self.path)
        path, faults = unquote(url.path), self.owner.faults
        self.owner.served.requests.append((self.command, path, self.headers.get("Range", "")))
        if faults.statuses and (status := faults.statuses.popleft()):
            self._refuse(status, "Fault", "told to")
        elif path == "/api/models":
            self._search({name: said[0] for name, said in parse_qs(url.query).items()})
        elif match := _TREE.fullmatch(path):
            self._with(match["repo"], match["rev"], self._tree)
        elif match := _INFO.fullmatch(path):
            self._with(match["repo"], match["rev"] or "main", self._info)
        elif match := _FILE.fullmatch(path):
            name = match["name"]
            self._with(match["repo"], match["rev"], lambda _, contents: self._file(contents, name))
        elif match := _CONTENT.fullmatch(path):
            self._content(match["tag"])
        else:
            self._refuse(404, "NotFound", "no such page")

    # ── the repository ──────────────────────────────────────────────────────────────────────

    def _with(self, repository: str, revision: str, answer: Any) -> None:
        faults = self.owner.faults
        contents = self.owner.repositories.contents(repository)
        known = self.headers.get("Authorization") == f"Bearer {faults.token}"
        if repository in faults.gated and not known:
            self._refuse(403 if self.headers.get("Authorization") else 401, "GatedRepo", "gated")
        elif repository in faults.private and not known:
            self._refuse(401, "RepoNotFound", "Repository not found")
        elif contents is None:
            self._refuse(404, "RepoNotFound", "Repository not found")
        elif revision not in ("main", now := self.owner.repositories.revision(contents)) and (
            not re.fullmatch("[0-9a-f]{40}", revision)
        ):
            self._refuse(404, "RevisionNotFound", f"no revision {revision}, only {now}")
        else:
            answer(repository, contents)

    def _info(self, repository: str, contents: list[Content]) -> None:
        siblings = []
        for one in contents:
            entry: dict[str, object] = {"rfilename": one.name}
            if self.owner.faults.lists_digests:
                entry |= {"size": one.size, "blobId": self.owner.faults.blob_id or one.oid}
                if one.sha256:
                    entry["lfs"] = {"sha256": one.sha256, "size": one.size, "pointerSize": 134}
            siblings.append(entry)
        self._json({
            "id": repository, "modelId": repository, "private": False,
            "gated": "auto" if repository in self.owner.faults.gated else False,
            "sha": self.owner.faults.sha or self.owner.repositories.revision(contents),
            "siblings": siblings,
        })  # fmt: skip

    def _tree(self, _repository: str, contents: list[Content]) -> None:
        self._json([
            {"type": "file", "path": one.name, "size": one.size, "oid": one.oid}
            | ({"lfs": {"oid": one.sha256, "size": one.size}} if one.sha256 else {})
            for one in contents
        ])  # fmt: skip

    def _search(self, query: dict[str, str]) -> None:
        owner, words = query.get("author", ""), query.get("search", "").lower()
        self._json([
            {"id": name, "modelId": name, "private": False}
            for name in self.owner.repositories.names()
            if (not owner or name.startswith(f"{owner}/")) and words in name.lower()
        ])  # fmt: skip

    # ── contents ────────────────────────────────────────────────────────────────────────────

    def _file(self, contents: list[Content], name: str) -> None:
        found = next((one for one in contents if one.name == name), None)
        if found is None:
            self._refuse(404, "EntryNotFound", "Entry not found")
            return
        headers = {"X-Repo-Commit": self.owner.repositories.revision(contents)}
        if found.sha256 is None:
            self._send(found, headers)
            return
        self.send_response(302)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("X-Linked-Etag", f'"{found.tag}"')
        self.send_header("X-Linked-Size", str(found.size))
        # Another name for the same host: what is secret must not follow there.
        elsewhere = self.owner.url.replace("127.0.0.1", "localhost")
        self.send_header("Location", f"{elsewhere}/content/{found.tag}")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _content(self, tag: str) -> None:
        self.owner.served.tokens.append(self.headers.get("Authorization", ""))
        found = self.owner.repositories.by_tag(tag)
        if found is None:
            self._refuse(404, "EntryNotFound", "Entry not found")
        else:
            self._send(found, {})

    def _send(self, content: Content, headers: dict[str, str]) -> None:
        faults, start, last = self.owner.faults, 0, content.size - 1
        asked = _RANGE.fullmatch(self.headers.get("Range", "")) if faults.ranges else None
        if asked is not None:
            start, last = int(asked["start"]), min(last, int(asked["last"] or last))
            if start > last:
                self._refuse(416, "Range", "not satisfiable")
                return
        self.send_response(200 if asked is None else 206)
        for key, value in headers.items():
            self.send_header(key, value)
        if asked is not None:
            self.send_header("Content-Range", f"bytes {start}-{last}/{content.size}")
        self.send_header("ETag", f'"{content.tag}"')
        self.send_header("Accept-Ranges", "bytes" if faults.ranges else "none")
        self.send_header("Content-Length", str(last + 1 - start))
        self.end_headers()
        if self.command == "GET":
            self._body(content, start, last + 1)

    def _body(self, content: Content, start: int, end: int) -> None:
        faults = self.owner.faults
        cut = faults.cut_after.popleft() if faults.cut_after else None
        swap = faults.swap_at if faults.swap_at is not None and content.sha256 else None
        stop = min([end, *(start + after for after in (cut, swap) if after is not None)])
        flip = faults.flipped > 0 and start == 0
        faults.flipped -= flip
        with content.path.open("rb") as file:
            if flip:
                self.wfile.write(bytes([file.read(1)[0] ^ 0xFF]))
                self._count(content, 1)
            self._copy(content, file, start + flip, stop)
        if swap is not None:
            faults.swap_at = None
            content.path.write_bytes(faults.swap_with)
        if stop < end:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    def _copy(self, content: Content, file: Any, at: int, stop: int) -> None:
        while at < stop:
            drip = self.owner.faults.drip
            most = _PIECE if drip is None else max(1, drip // 20)
            want = min(stop - at, most)
            self.wfile.flush()
            sent = self.connection.sendfile(file, at, want)
            self._count(content, sent)
            at += sent
            if drip is not None:
                time.sleep(sent / drip)

    def _count(self, content: Content, sent: int) -> None:
        self.owner.served.bytes[content.name] += sent

    # ── answers ─────────────────────────────────────────────────────────────────────────────

    def _json(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def _refuse(self, status: int, code: str, message: str) -> None:
        body = json.dumps({"error": message}).encode()
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        if self.owner.faults.retry_after_s is not None:
            self.send_header("Retry-After", str(self.owner.faults.retry_after_s))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
