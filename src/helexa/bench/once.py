"""One measurement of one endpoint, without settings and without a store."""

from __future__ import annotations

import uuid

import msgspec

from helexa.bench.row import Result
from helexa.bench.scenarios.base import Asked, Scenario
from helexa.bench.scenarios.chat import Chat, Concurrency
from helexa.bench.settings import TargetSettings
from helexa.bench.targets.base import Survey, TargetDown
from helexa.bench.targets.openai import OpenaiTarget

_TIMEOUT_S = 600.0
_UNNAMED = "{} lists no models; name one with --model"


async def probe(
    url: str, key: str | None, model: str | None, *, prompt: int, cap: int, streams: int = 1
) -> Result:
    """Ask ``url`` once, after a short warm-up.

    Args:
        model: None takes the first one that is listed.
        prompt: Tokens; with several streams each has a short prompt of its own.

    Raises:
        TargetDown: It does not answer, or lists no model.
        ValueError: ``url`` is none.
    """
    target = OpenaiTarget(TargetSettings("probe", "openai", url), key, _TIMEOUT_S, "")
    if model is None:
        survey = await _survey(target, url)
        if not survey.models:
            raise TargetDown(_UNNAMED.format(url))
        model = survey.models[0].facts.model
    asked = Asked(target, model, cap, "probe", uuid.uuid4().hex)
    warm = msgspec.structs.replace(asked, cap=8, seed="warm")
    timed = await target.prober.ask(warm.body(warm.prompt(32)))
    if timed.status in (400, 422):
        target.extras.pop("ignore_eos", None)
    scenario: Scenario = Chat(prompt) if streams == 1 else Concurrency(streams)
    return await scenario.run(asked)


async def _survey(target: OpenaiTarget, url: str) -> Survey:
    try:
        return await target.survey()
    except TargetDown as error:
        if " answered 404" in str(error):  # a node, for one, which lists them elsewhere
            raise TargetDown(_UNNAMED.format(url)) from error
        raise
