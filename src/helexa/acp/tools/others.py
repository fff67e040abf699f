"""The plan, and pages of the web."""

from __future__ import annotations

import asyncio
import html
import http.client
import re
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from helexa.acp.protocol.updates import Kind, plan
from helexa.acp.tools.base import Context, Done, Json, Prepared, ToolTrouble, schema, words

_STATES = ("pending", "in_progress", "completed")
_TIMEOUT_S = 20
_MOST_BYTES = 1_000_000
_MOST_TEXT = 30_000
_TEXTUAL = re.compile(r"^text/|json|xml|javascript|yaml|toml|x-sh|x-www-form")


class Todo:
    """``todo``: drives the plan that the editor shows."""

    name = "todo"
    description = "Show the user your plan: all of its steps, each with its state."
    parameters = schema(
        ("steps",),
        steps={
            "type": "array",
            "items": schema(
                ("content", "status"),
                content={"type": "string"},
                status={"type": "string", "enum": list(_STATES)},
            ),
        },
    )
    kind: Kind = "think"
    reads_only = True
    in_plan = True

    async def prepare(self, arguments: Json, context: Context) -> Prepared:
        """See ``Tool``."""
        steps = arguments.get("steps")
        if not isinstance(steps, list):
            raise ToolTrouble("`steps` must be a list of {content, status}")
        entries = []
        for step in steps:
            if not isinstance(step, dict) or step.get("status", "pending") not in _STATES:
                raise ToolTrouble(f"a step has content and a status: one of {', '.join(_STATES)}")
            entries.append((words(step, "content"), step.get("status", "pending")))

        async def perform() -> Done:
            context.plan[:] = entries
            await context.editor.update(plan(entries))
            return Done.text("The user sees the plan.")

        return Prepared("Update the plan", perform)


class FetchUrl:
    """``fetch_url``."""

    name = "fetch_url"
    description = "Get a page of the web as text."
    parameters = schema(("url",), url={"type": "string"})
    kind: Kind = "fetch"
    reads_only = False
    in_plan = True

    async def prepare(self, arguments: Json, context: Context) -> Prepared:
        """See ``Tool``."""
        del context
        url = words(arguments, "url")
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ToolTrouble(f"{url!r} is not an http:// or https:// address")

        async def perform() -> Done:
            return Done.text(await asyncio.to_thread(_fetch, url))

        return Prepared(f"Fetch {url}", perform, subject=parts.hostname)


class _SameHost(urllib.request.HTTPRedirectHandler):
    """Stays where the user has allowed to go."""

    def redirect_request(
        self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> Any:
        """See ``urllib``; raises ToolTrouble for another host."""
        if urlsplit(newurl).hostname != urlsplit(req.full_url).hostname:
            raise ToolTrouble(f"{req.full_url} leads to {newurl}; fetch that if it is wanted")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _fetch(url: str) -> str:
    request = urllib.request.Request(url, headers={"user-agent": "helexa-acp"})  # noqa: S310
    try:
        opener = urllib.request.build_opener(_SameHost)
        with opener.open(request, timeout=_TIMEOUT_S) as answer:
            kind = answer.headers.get_content_type()
            if not _TEXTUAL.search(kind):
                raise ToolTrouble(f"{url} is {kind}: it cannot be read as text")
            text = answer.read(_MOST_BYTES).decode(
                answer.headers.get_content_charset() or "utf-8", "replace"
            )
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise ToolTrouble(f"{url} cannot be had: {error}") from error
    found = _plain(text) if kind == "text/html" else text
    if len(found) > _MOST_TEXT:
        found = f"{found[:_MOST_TEXT]}\n(cut: the page goes on)"
    return found


def _plain(page: str) -> str:
    """The words of a page."""
    page = re.sub(r"(?is)<(script|style|head)\b.*?</\1>", " ", page)
    page = re.sub(r"(?i)<(br|/p|/div|/li|/h\d|/tr)\b[^>]*>", "\n", page)
    text = html.unescape(re.sub(r"<[^>]+>", " ", page))
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return "\n".join(line for line in lines if line)
