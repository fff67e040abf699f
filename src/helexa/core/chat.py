"""A request in no dialect: what is asked of a model, whoever's wire it came over.

Each dialect's decoder makes a ``ChatRequest``; ``wire.chat_request.encode_chat`` turns it into
what nodes read. So N dialects take N decoders. A chat completion that stays one is never decoded.

JSON that is only passed on (schemas, keyword arguments of a template) stays ``msgspec.Raw``: its
members keep the client's order and spelling. The arguments of a tool call are a string for the
same reason: they reach every dialect byte by byte as the model wrote them.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Role = Literal["system", "developer", "user", "assistant", "tool"]
ToolMode = Literal["auto", "none", "required"]
FormatKind = Literal["text", "json_object", "json_schema"]


class Text(msgspec.Struct, frozen=True, tag="text"):
    """Words."""

    text: str


class Image(msgspec.Struct, frozen=True, tag="image"):
    """A picture: a ``data:`` URL. An address is refused where it is read: nobody fetches it.

    Args:
        detail: ``auto``, ``low`` or ``high``; None where the client did not say.
    """

    url: str
    detail: str | None = None


Part = Text | Image


class ToolCall(msgspec.Struct, frozen=True):
    """A call that the model made earlier.

    Args:
        id: The dialect's call id; a tool's result names it.
        arguments: JSON text, as the model wrote it.
    """

    id: str
    name: str
    arguments: str


class Message(msgspec.Struct, frozen=True):
    """One turn. Order within an assistant's turn: reasoning, content, tool calls.

    Args:
        content: Empty for a turn that only calls tools.
        tool_calls: Of an assistant.
        reasoning: What an assistant thought; empty when unknown or never told.
        tool_call_id: Whose result a ``tool`` message is.
        name: Name of a participant or of the tool that answers.
    """

    role: Role
    content: tuple[Part, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    reasoning: str = ""
    tool_call_id: str | None = None
    name: str | None = None


class Tool(msgspec.Struct, frozen=True):
    """A function the model may call.

    Args:
        parameters: JSON schema of its arguments, an object; None takes none.
        strict: Arguments must validate; None where the client did not say.
    """

    name: str
    description: str | None = None
    parameters: msgspec.Raw | None = None
    strict: bool | None = None


class ToolChoice(msgspec.Struct, frozen=True):
    """Whether tools may or must be called.

    Args:
        names: The only ones meant; empty means all of the request's tools. ``required`` with one
            name forces that tool.
    """

    mode: ToolMode = "auto"
    names: tuple[str, ...] = ()


class ResponseFormat(msgspec.Struct, frozen=True):
    """The form of the answer's text.

    Args:
        schema: JSON schema, for ``json_schema``.
        strict: None where the client did not say.
    """

    kind: FormatKind = "text"
    name: str = "response"
    schema: msgspec.Raw | None = None
    strict: bool | None = None
    description: str | None = None


class Sampling(msgspec.Struct, frozen=True):
    """How tokens are drawn; None leaves it to the model's own defaults.

    Args:
        stop: Texts that end the answer and are not part of it.
        logprobs: Log probabilities of the answer's tokens are wanted, and of ``top_logprobs``
            others at each place.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    top_logprobs: int | None = None


class Reasoning(msgspec.Struct, frozen=True):
    """What the client wants of thinking; each None is "not said".

    Args:
        enabled: Asked for, asked not to.
        effort: The dialect's word (``minimal``, ``low``, …).
        budget: Tokens.
    """

    enabled: bool | None = None
    effort: str | None = None
    budget: int | None = None


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that is asked.

    Args:
        model: As the client named it.
        parallel_tool_calls: None where the client did not say.
        max_output: The client's limit on output tokens, reasoning included.
        template: Keyword arguments for the model's chat template, an object.
        user: Who the client says is asking: a hint for affinity, never a principal.
    """

    model: str
    messages: tuple[Message, ...]
    stream: bool = False
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    format: ResponseFormat = ResponseFormat()
    sampling: Sampling = Sampling()
    reasoning: Reasoning = Reasoning()
    max_output: int | None = None
    template: msgspec.Raw | None = None
    user: str | None = None

    def __repr__(self) -> str:
        """Sizes only: a prompt belongs into no log."""
        return (
            f"ChatRequest(model={self.model!r}, messages={len(self.messages)}, "
            f"tools={len(self.tools)}, stream={self.stream})"
        )
