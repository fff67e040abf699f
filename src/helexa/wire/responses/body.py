"""The members of a Responses request that mean something here; others are skipped over.

Items come typed and bare, so there is one wide struct for all of them: ``type`` decides, and an
item without one is a message.
"""

from __future__ import annotations

from typing import Any

import msgspec

Json = dict[str, Any]


class Part(msgspec.Struct):
    """A piece of content; ``image_url`` is a string here and an object in chat."""

    type: str = "input_text"
    text: str | None = None
    refusal: str | None = None
    image_url: str | Json | None = None
    detail: str | None = None
    file_id: str | None = None
    file_data: str | None = None
    file_url: str | None = None
    filename: str | None = None


class Item(msgspec.Struct):
    """A message, a call, a call's output, a thought, a reference, or what only OpenAI runs."""

    type: str | None = None
    id: str | None = None
    role: str | None = None
    content: str | list[Part] | None = None
    call_id: str | None = None
    name: str | None = None
    namespace: str | None = None
    arguments: str | Json | None = None
    input: str | None = None
    output: msgspec.Raw = msgspec.Raw()
    summary: list[Part] | None = None
    tools: msgspec.Raw = msgspec.Raw()
    encrypted_content: str | None = None


class ToolBody(msgspec.Struct):
    """A tool: a function, a custom one, a namespace of them, or something hosted."""

    type: str = "function"
    name: str | None = None
    description: str | None = None
    parameters: msgspec.Raw = msgspec.Raw()
    strict: bool | None = None
    format: msgspec.Raw = msgspec.Raw()
    tools: list[ToolBody] | None = None


class NamedTool(msgspec.Struct):
    """A tool that a choice names."""

    type: str = "function"
    name: str | None = None
    namespace: str | None = None


class ToolChoiceBody(NamedTool):
    """A choice that is no word: one tool, or some of them."""

    mode: str | None = None
    tools: list[NamedTool] | None = None


class FormatBody(msgspec.Struct):
    """``text.format``."""

    type: str = "text"
    name: str | None = None
    schema: msgspec.Raw = msgspec.Raw()
    strict: bool | None = None
    description: str | None = None


class TextBody(msgspec.Struct):
    """``text``."""

    format: FormatBody | None = None
    verbosity: str | None = None


class ReasoningBody(msgspec.Struct):
    """``reasoning``; the summary says what to show, not whether to think."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None


class PromptCacheOptions(msgspec.Struct):
    """``prewarm`` asks for the prompt to be cached, and for no output."""

    prewarm: bool | None = None


MOVED = {
    "messages": "input",
    "response_format": "text.format",
    "max_tokens": "max_output_tokens",
    "max_completion_tokens": "max_output_tokens",
    "reasoning_effort": "reasoning.effort",
    "functions": "tools",
    "stop": None,
    "n": None,
    "logit_bias": None,
}
"""Members of chat completions, and what they are called here."""


class Body(msgspec.Struct, kw_only=True):
    """``POST /v1/responses``. Null is unset."""

    model: str
    input: str | list[Item] | None = None
    instructions: str | list[Item] | None = None
    stream: bool | None = None
    tools: list[ToolBody] | None = None
    tool_choice: str | ToolChoiceBody | None = None
    parallel_tool_calls: bool | None = None
    text: TextBody | None = None
    reasoning: ReasoningBody | None = None
    include: list[str] | None = None
    store: bool | None = None
    previous_response_id: str | None = None
    conversation: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    moderation: msgspec.Raw = msgspec.Raw()
    background: bool | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    top_logprobs: int | None = None
    chat_template_kwargs: msgspec.Raw = msgspec.Raw()
    metadata: Json | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: PromptCacheOptions | None = None
    messages: msgspec.Raw = msgspec.Raw()
    response_format: msgspec.Raw = msgspec.Raw()
    max_tokens: msgspec.Raw = msgspec.Raw()
    max_completion_tokens: msgspec.Raw = msgspec.Raw()
    reasoning_effort: msgspec.Raw = msgspec.Raw()
    functions: msgspec.Raw = msgspec.Raw()
    stop: msgspec.Raw = msgspec.Raw()
    n: msgspec.Raw = msgspec.Raw()
    logit_bias: msgspec.Raw = msgspec.Raw()

    @property
    def warms(self) -> bool:
        """Only the prompt is to be cached."""
        options = self.prompt_cache_options
        return options is not None and options.prewarm is True
