"""``helexa acp --doctor``: what was found, which model would be used, and one test answer."""

from __future__ import annotations

import time
from collections.abc import Mapping

import msgspec

from helexa.acp.build import catalogue
from helexa.acp.catalogue import NoModel
from helexa.acp.settings import AcpSettings
from helexa.core.chat import ChatRequest, Message, Text
from helexa.core.errors import HelexaError
from helexa.core.events import Failed, Finished, ReasoningDelta, TextDelta

_QUESTION = "Answer with one word: what is the capital of France?"
_CAP = 64


class Finding(msgspec.Struct, frozen=True):
    """One endpoint."""

    endpoint: str
    base_url: str
    wire: str
    models: list[str]
    trouble: str = ""


class Diagnosis(msgspec.Struct, frozen=True):
    """Everything that was found; ``ok`` if a test answer came."""

    ok: bool
    settings: str
    endpoints: list[Finding]
    chosen: str = ""
    context: int = 0
    answer: str = ""
    first_ms: float | None = None
    trouble: str = ""


async def examine(settings: AcpSettings, path: str, environ: Mapping[str, str]) -> Diagnosis:
    """Ask every endpoint, and the chosen model one question."""
    known = catalogue(settings, environ)
    await known.refresh()
    endpoints = [
        Finding(
            endpoint.name,
            endpoint.base_url,
            endpoint.wire,
            [choice.model.id for choice in known.choices if choice.endpoint == endpoint.name],
            known.down.get(endpoint.name) or _absent(known.absent.get(endpoint.name)),
        )
        for endpoint in settings.endpoints
    ]
    try:
        chosen = known.default()
    except NoModel as error:
        return Diagnosis(False, path, endpoints, trouble=str(error))
    request = ChatRequest(
        model=chosen.model.id,
        messages=(Message("user", (Text(_QUESTION),)),),
        stream=True,
        max_output=_CAP,
    )
    said, first, trouble, ended = "", None, "", False
    started = time.perf_counter()
    try:
        async for event in known.providers[chosen.endpoint].stream(request):
            if isinstance(event, (TextDelta, ReasoningDelta)) and first is None:
                first = (time.perf_counter() - started) * 1000
            if isinstance(event, TextDelta):
                said += event.text
            ended = ended or isinstance(event, Finished)
            if isinstance(event, Failed):
                trouble = event.error.message
    except HelexaError as error:
        trouble = error.message
    return Diagnosis(
        ended and not trouble, path, endpoints, chosen.selector, chosen.context, said.strip(),
        first, trouble,
    )  # fmt: skip


def _absent(model: str | None) -> str:
    return "" if model is None else f"does not list its default model {model!r}"


def lines(found: Diagnosis) -> list[str]:
    """For people."""
    out = [f"settings: {found.settings}"]
    for one in found.endpoints:
        count = "1 model" if len(one.models) == 1 else f"{len(one.models)} models"
        state = f"{count}: {', '.join(one.models[:8])}" if one.models else ""
        state = "; ".join(words for words in (one.trouble, state) if words) or "no models"
        mark = "!" if one.trouble else "✓"
        out.append(f"{mark} {one.endpoint}  {one.base_url} ({one.wire})  {state}")
    if found.chosen:
        out.append(f"would use {found.chosen}, {found.context:,} tokens of context")
    if found.ok:
        first = "" if found.first_ms is None else f" (first token after {found.first_ms:.0f} ms)"
        out.append(f"✓ it answered: {found.answer!r}{first}")
    else:
        out.append(f"! {found.trouble or 'no answer came'}")
    return out
