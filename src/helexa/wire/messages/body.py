"""The members of a Messages request that mean something here; others are skipped over."""

from __future__ import annotations

import msgspec


class TextBlock(msgspec.Struct, tag="text"):
    """Words; citations and cache marks are Anthropic's own business."""

    text: str


class Source(msgspec.Struct):
    """Where an image or a document is: ``base64``, ``url``, ``text``, ``content`` or ``file``."""

    type: str
    media_type: str | None = None
    data: str | None = None
    url: str | None = None
    content: str | list[TextBlock | ImageBlock] | None = None


class ImageBlock(msgspec.Struct, tag="image"):
    """A picture."""

    source: Source


class DocumentBlock(msgspec.Struct, tag="document"):
    """Text that the client calls a document."""

    source: Source
    title: str | None = None
    context: str | None = None


class SearchResultBlock(msgspec.Struct, tag="search_result"):
    """Text that the client found somewhere."""

    source: str
    title: str
    content: list[TextBlock]


class ToolReferenceBlock(msgspec.Struct, tag="tool_reference"):
    """A tool of the request that the client's own search has found."""

    tool_name: str


class ToolUseBlock(msgspec.Struct, tag="tool_use"):
    """A call that the model made; ``input`` stays the client's bytes."""

    id: str
    name: str
    input: msgspec.Raw = msgspec.Raw(b"{}")


ResultBlock = TextBlock | ImageBlock | DocumentBlock | SearchResultBlock | ToolReferenceBlock


class ToolResultBlock(msgspec.Struct, tag="tool_result"):
    """What a tool answered."""

    tool_use_id: str
    content: str | list[ResultBlock] | None = None
    is_error: bool | None = None


class ThinkingBlock(msgspec.Struct, tag="thinking"):
    """What the model thought before; its signature is ours and needs no check."""

    thinking: str = ""


class RedactedThinkingBlock(msgspec.Struct, tag="redacted_thinking"):
    """Thoughts that only their author could read."""


Block = (
    TextBlock
    | ImageBlock
    | DocumentBlock
    | SearchResultBlock
    | ToolUseBlock
    | ToolResultBlock
    | ThinkingBlock
    | RedactedThinkingBlock
)
KNOWN_BLOCKS = (
    "text, image, document, search_result, tool_use, tool_result, thinking, redacted_thinking"
)


class Turn(msgspec.Struct):
    """One element of ``messages``."""

    role: str
    content: str | list[Block] | None = None


class ToolBody(msgspec.Struct):
    """A tool: the client's own, or (with another ``type``) one that Anthropic runs or defines."""

    name: str = ""
    type: str | None = None
    description: str | None = None
    input_schema: msgspec.Raw = msgspec.Raw()
    strict: bool | None = None


class ToolChoiceBody(msgspec.Struct):
    """``auto``, ``any``, ``tool`` or ``none``."""

    type: str
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingBody(msgspec.Struct):
    """``enabled`` with a budget, ``adaptive``, ``disabled``."""

    type: str
    budget_tokens: int | None = None
    display: str | None = None


class FormatBody(msgspec.Struct):
    """``json_schema``."""

    type: str = "json_schema"
    schema: msgspec.Raw = msgspec.Raw()


class OutputConfig(msgspec.Struct):
    """How the answer should be made."""

    effort: str | None = None
    format: FormatBody | None = None


class Metadata(msgspec.Struct):
    """About the request."""

    user_id: str | None = None


MOVED = {
    "response_format": "output_config.format",
    "max_completion_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "stop": "stop_sequences",
    "functions": "tools",
    "n": None,
    "logit_bias": None,
}
"""Members of other dialects, and what they are called here."""


class Body(msgspec.Struct):
    """The request. ``output_format`` is what ``output_config.format`` was called in its beta."""

    model: str = ""
    messages: list[Turn] | None = None
    system: str | list[TextBlock] | None = None
    max_tokens: int | None = None
    stream: bool | None = None
    stop_sequences: list[str] | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    tools: list[ToolBody] | None = None
    tool_choice: ToolChoiceBody | None = None
    thinking: ThinkingBody | None = None
    output_config: OutputConfig | None = None
    output_format: FormatBody | None = None
    metadata: Metadata | None = None
    thread: msgspec.Raw = msgspec.Raw()
    mcp_servers: msgspec.Raw = msgspec.Raw()
    container: msgspec.Raw = msgspec.Raw()
    compaction: msgspec.Raw = msgspec.Raw()
    response_format: msgspec.Raw = msgspec.Raw()
    max_completion_tokens: msgspec.Raw = msgspec.Raw()
    max_output_tokens: msgspec.Raw = msgspec.Raw()
    stop: msgspec.Raw = msgspec.Raw()
    functions: msgspec.Raw = msgspec.Raw()
    n: msgspec.Raw = msgspec.Raw()
    logit_bias: msgspec.Raw = msgspec.Raw()
