"""What is read without a chat around it: the prompt of a text completion, and token ids."""

from __future__ import annotations

from helexa.core.errors import InvalidRequestBody, UnsupportedParameter
from helexa.neuron.engines.request import Json, check_tops, wrong


def check_token_ids(ids: list[int], path: str) -> None:
    """Engines take the lower bits of what is too large for an id, and so another token.

    Raises:
        InvalidRequestBody: One that no vocabulary has.
    """
    wrong_id = next((token for token in ids if not 0 <= token < 2**31), None)
    if wrong_id is not None:
        raise InvalidRequestBody(f"`{path}` holds the token id {wrong_id}; there is no such.",
                                 param=path)  # fmt: skip


def check_prompt(body: Json) -> None:
    """Check a text completion in place: one prompt, as text or token ids.

    Raises:
        RequestRefused: With the path of what is wrong.
    """
    prompt = body.get("prompt")
    if prompt is None:
        raise InvalidRequestBody("The request has no `prompt`.", param="prompt")
    if isinstance(prompt, list) and len(prompt) == 1 and isinstance(prompt[0], (str, list)):
        prompt = body["prompt"] = prompt[0]
    tokens = isinstance(prompt, list) and all(type(token) is int for token in prompt)
    if not isinstance(prompt, str) and not tokens:
        if isinstance(prompt, list):
            raise UnsupportedParameter("Send one `prompt` per request.", param="prompt")
        raise wrong("prompt", "a string", prompt)
    if tokens and isinstance(prompt, list):
        check_token_ids(prompt, "prompt")
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
