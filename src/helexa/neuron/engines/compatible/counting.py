"""Prompt tokens of a cleaned request, asked of the engine.

Two forms are about: vLLM's ``/tokenize``, which gets messages, tools and template arguments, or a
text; and OpenAI's ``…/input_tokens`` (llama.cpp has it too), which gets the chat request itself.
"""

from __future__ import annotations

import msgspec

from helexa.core.errors import HelexaError
from helexa.neuron.engines.base import Address, EngineRequest, Served
from helexa.neuron.engines.compatible.errors import map_error
from helexa.neuron.engines.compatible.habits import Habits
from helexa.neuron.engines.compatible.stream import guess_tokens
from helexa.neuron.engines.http import ask, counting_s
from helexa.neuron.engines.request import Json

_CHAT = ("model", "messages", "tools", "chat_template_kwargs", "add_generation_prompt",
         "continue_final_message", "add_special_tokens", "mm_processor_kwargs")  # fmt: skip
_ARGUMENTS = ("reasoning_effort",)
"""Members of a chat request that reach the template as arguments."""


async def prompt_tokens(
    address: Address, asked: EngineRequest, served: Served, habits: Habits
) -> int:
    """Exact tokens of what will be sent; rather too few where the engine does not count.

    Raises:
        HelexaError: The engine refuses the request.
    """
    body: Json = msgspec.json.decode(asked.body)
    prompt = body.get("prompt")
    if isinstance(prompt, list):
        return len(prompt)
    vectors = "messages" not in body and prompt is None  # several inputs: no engine counts those
    if vectors or habits.tokenize is None or (prompt is not None and _whole(habits.tokenize)):
        return guess_tokens(asked.body)
    within = counting_s(len(asked.body))
    if _whole(habits.tokenize):
        answer = await ask(address, "POST", habits.tokenize, asked.body, timeout_s=within)
        if answer.status != 200:
            raise _refusal(answer.status, answer.body, served)
        return int(answer.json()["input_tokens"])
    question = (
        _chat_question(body) if prompt is None else {"model": body["model"], "prompt": prompt}
    )
    answer = await ask(address, "POST", habits.tokenize, question, timeout_s=within)
    if answer.status != 200:
        raise _refusal(answer.status, answer.body, served)
    return int(answer.json()["count"])


def _whole(path: str) -> bool:
    """Whether the path takes the request as it is."""
    return path.endswith("/input_tokens")


def _chat_question(body: Json) -> Json:
    question = {name: body[name] for name in _CHAT if name in body}
    arguments = {name: body[name] for name in _ARGUMENTS if name in body}
    if arguments:
        given = question.get("chat_template_kwargs") or {}
        question["chat_template_kwargs"] = {**arguments, **given}
    return question


def _refusal(status: int, body: bytes, served: Served) -> HelexaError:
    return map_error(status, body, served)
