"""What is read without a chat around it: the prompts of a text completion, and token ids."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from helexa.core.errors import InvalidRequestBody, UnsupportedParameter
from helexa.neuron.engines.base import EngineRequest, Frame, Several
from helexa.neuron.engines.request import Json, check_tops, wrong

MOST_PROMPTS = 2048
"""Of one text completion, as of embeddings: their answers are all in memory at once."""


def check_token_ids(ids: list[int], path: str) -> None:
    """Engines take the lower bits of what is too large for an id, and so another token.

    Raises:
        InvalidRequestBody: One that no vocabulary has.
    """
    wrong_id = next((token for token in ids if not 0 <= token < 2**31), None)
    if wrong_id is not None:
        raise InvalidRequestBody(f"`{path}` holds the token id {wrong_id}; there is no such.",
                                 param=path)  # fmt: skip


def take_prompts(body: Json) -> list[str | list[int]]:
    """Check a text completion, and take its prompts out of it: each text, or token ids.

    Raises:
        RequestRefused: With the path of what is wrong, for example ``prompt[1]``.
    """
    prompt = body.pop("prompt", None)
    if prompt is None:
        raise InvalidRequestBody("The request has no `prompt`.", param="prompt")
    prompts = _prompts(prompt)
    check_tops(body, "logprobs", "n_probs")
    if body.pop("echo", False):
        raise UnsupportedParameter("`echo` is not supported.", param="echo")
    if body.pop("suffix", None):
        raise UnsupportedParameter("`suffix` is not supported.", param="suffix")
    best = body.pop("best_of", 1)
    if best != body.get("n", 1) and best != 1:
        raise UnsupportedParameter(
            f"`best_of` is {best!r}; answers are not compared here. Ask for them all with `n`.",
            param="best_of",
        )
    return prompts


def _prompts(given: Any) -> list[str | list[int]]:
    """A text, token ids, or a list of either."""
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list):
        raise wrong("prompt", "a string or a list", given)
    if not given:
        raise InvalidRequestBody("`prompt` is empty.", param="prompt")
    if type(given[0]) is int:
        _check_ids(given, "prompt")
        return [given]
    if len(given) > MOST_PROMPTS:
        raise InvalidRequestBody(
            f"`prompt` has {len(given)} items; send at most {MOST_PROMPTS} in one request.",
            param="prompt",
        )
    kind = type(given[0])
    if kind not in (str, list):
        raise wrong("prompt[0]", "a string, a token id or a list of token ids", given[0])
    for index, item in enumerate(given):
        if type(item) is not kind:
            raise wrong(f"prompt[{index}]", "of one kind with the others", item)
        if isinstance(item, list):
            _check_ids(item, f"prompt[{index}]")
    return given


def _check_ids(given: list[Any], path: str) -> None:
    if not given:
        raise InvalidRequestBody(f"`{path}` is empty.", param=path)
    if not all(type(token) is int for token in given):
        raise wrong(path, "a list of token ids", given)
    check_token_ids(given, path)


class MakeRequest(Protocol):
    """Makes an engine's request of a checked body.

    Args of a call:
        body: With its prompt.
        first: The number of its first choice.
    """

    def __call__(self, body: Json, first: int) -> EngineRequest: ...


def requests_of(
    body: Json, prompts: list[str | list[int]], frame: Frame, make: MakeRequest
) -> EngineRequest:
    """One request, or that of the first with all of ``several``: a prompt's choices follow those
    of the one before it, as OpenAI numbers them."""
    if len(prompts) == 1:
        return make(body | {"prompt": prompts[0]}, 0)
    choices = body.get("n", 1)
    requests = tuple(
        make(body | {"prompt": prompt}, index * choices) for index, prompt in enumerate(prompts)
    )
    return msgspec.structs.replace(requests[0], several=Several(requests, frame))
