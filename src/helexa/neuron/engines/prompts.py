"""What is read without a chat around it: the prompts of a text completion, and token ids."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import msgspec

from helexa.core.errors import InvalidRequestBody, UnsupportedParameter
from helexa.neuron.engines.base import EngineRequest, Several
from helexa.neuron.engines.render import Envelope
from helexa.neuron.engines.request import Json, check_tops, json_type, wrong

MOST_PROMPTS = 2048
"""Of one text completion, as of embeddings: their answers are all in memory at once."""


def check_ids(given: list[Any], path: str) -> None:
    """A list of token ids. Engines take the lower bits of what is too large for an id, and so
    another token.

    Raises:
        InvalidRequestBody: It is empty, or holds what is no id, or one that no vocabulary has.
    """
    if not given:
        raise InvalidRequestBody(f"`{path}` is empty.", param=path)
    other = next((token for token in given if type(token) is not int), None)
    if other is not None:
        raise InvalidRequestBody(f"`{path}` holds {json_type(other)} among token ids.", param=path)
    wrong_id = next((token for token in given if not 0 <= token < 2**31), None)
    if wrong_id is not None:
        raise InvalidRequestBody(f"`{path}` holds the token id {wrong_id}, which does not exist.",
                                 param=path)  # fmt: skip


class Prompts(NamedTuple):
    """What a text completion asks to be completed.

    Args:
        items: Each a text, or token ids.
        echo: Answers begin with their prompt; all are texts then.
    """

    items: list[str | list[int]]
    echo: bool = False


def take_prompts(body: Json) -> Prompts:
    """Check a text completion, and take its prompts out of it.

    Raises:
        RequestRefused: With the path of what is wrong, for example ``prompt[1]``.
    """
    prompt = body.pop("prompt", None)
    if prompt is None:
        raise InvalidRequestBody("The request has no `prompt`.", param="prompt")
    prompts = _prompts(prompt)
    check_tops(body, "logprobs", "n_probs")
    echo = _take_echo(body, prompts)
    if body.pop("suffix", None):
        raise UnsupportedParameter("`suffix` is not supported.", param="suffix")
    best = body.pop("best_of", 1)
    if best != body.get("n", 1) and best != 1:
        raise UnsupportedParameter(
            f"`best_of` is {best!r}; answers are not compared here. Ask for them all with `n`.",
            param="best_of",
        )
    return Prompts(prompts, echo)


def _take_echo(body: Json, prompts: list[str | list[int]]) -> bool:
    echo = body.pop("echo", False)
    if not isinstance(echo, bool):
        raise wrong("echo", "a boolean", echo)
    if echo and "logprobs" in body:
        raise UnsupportedParameter(
            "`echo` gives back the prompt's text and not its log probabilities; leave out one of "
            "`echo` and `logprobs`.", param="echo",
        )  # fmt: skip
    if echo and not isinstance(prompts[0], str):
        raise UnsupportedParameter(
            "`echo` gives back text; send the prompt as text, not as token ids.", param="echo"
        )
    return echo


def _prompts(given: Any) -> list[str | list[int]]:
    """A text, token ids, or a list of either."""
    if isinstance(given, str):
        return [given]
    if not isinstance(given, list):
        raise wrong("prompt", "a string or a list", given)
    if not given:
        raise InvalidRequestBody("`prompt` is empty.", param="prompt")
    if type(given[0]) is int:
        check_ids(given, "prompt")
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
            check_ids(item, f"prompt[{index}]")
    return given


class MakeRequest(Protocol):
    """Makes an engine's request of a checked body.

    Args of a call:
        body: With its prompt.
        first: The number of its first choice.
        echo: What answers begin with.
    """

    def __call__(self, body: Json, first: int, echo: str) -> EngineRequest: ...


def requests_of(body: Json, prompts: Prompts, frame: Envelope, make: MakeRequest) -> EngineRequest:
    """One request, or that of the first with all of ``several``: a prompt's choices follow those
    of the one before it, as OpenAI numbers them."""
    choices = body.get("n", 1)
    requests = tuple(
        make(body | {"prompt": item}, index * choices, str(item) if prompts.echo else "")
        for index, item in enumerate(prompts.items)
    )
    if len(requests) == 1:
        return requests[0]
    return msgspec.structs.replace(
        requests[0], several=Several(requests, "choices", frame.whole, frame)
    )
