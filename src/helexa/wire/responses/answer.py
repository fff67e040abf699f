"""The shapes of a response: the object, its items, usage, and what of the request it repeats."""

from __future__ import annotations

from typing import Any

import msgspec

from helexa.core.errors import HelexaError
from helexa.core.events import Finished
from helexa.core.usage import Usage
from helexa.wire import errors
from helexa.wire.responses.body import Body, Item
from helexa.wire.responses.decode import SEALED
from helexa.wire.responses.tools import Names

Json = dict[str, Any]

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
_SUMMARIES = ("auto", "concise", "detailed")


class Asked(msgspec.Struct, frozen=True):
    """What of a request its answer has to know.

    Args:
        response_id: ``resp_`` and letters; new for each answer.
        created: Unix seconds.
        echo: Members of the response that repeat the request.
        names: How the client calls its functions.
        summary: The client wants thoughts as a summary.
        sealed: The client wants to send thoughts back without reading them.
    """

    response_id: str
    created: int
    echo: Json
    names: Names
    summary: bool = False
    sealed: bool = False

    def __repr__(self) -> str:
        return f"Asked(response_id={self.response_id!r})"


def asked(body: Body, names: Names, response_id: str, created: int, *, stored: bool) -> Asked:
    """What the answer to ``body`` has to know.

    Args:
        stored: The response will be kept.
    """
    reasoning = body.reasoning
    summary = (reasoning.summary or reasoning.generate_summary) if reasoning is not None else None
    return Asked(
        response_id,
        created,
        _echo(body, stored),
        names,
        summary=summary is not None and summary != "none",
        sealed=SEALED in (body.include or ()),
    )


def _echo(body: Body, stored: bool) -> Json:
    """Members that repeat the request; strict readers want every one of them."""
    text = body.text
    reasoning = body.reasoning
    effort = reasoning.effort if reasoning is not None else None
    summary = reasoning.summary if reasoning is not None else None
    return {
        "background": False,
        "instructions": _instructions(body),
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": None,
        "metadata": body.metadata or {},
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "prompt_cache_key": body.prompt_cache_key,
        "reasoning": {
            "effort": effort if effort in _EFFORTS else None,
            "summary": summary if summary in _SUMMARIES else None,
        },
        "safety_identifier": body.safety_identifier,
        "service_tier": "default",
        "store": stored,
        "temperature": 1.0 if body.temperature is None else body.temperature,
        "text": {"format": _format(body), **_verbosity(text.verbosity if text else None)},
        "tool_choice": _choice(body),
        "tools": [tool for tool in (_tool(tool) for tool in body.tools or ()) if tool],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "frequency_penalty": body.frequency_penalty or 0.0,
        "presence_penalty": body.presence_penalty or 0.0,
        "truncation": "disabled",
        **({} if body.user is None else {"user": body.user}),
    }


def _instructions(body: Body) -> str | None:
    """As one text: strict readers of an answer want no list, whatever the request had."""
    given = body.instructions
    if not isinstance(given, list):
        return given
    texts = [item.content if isinstance(item.content, str) else _text(item) for item in given]
    return "\n\n".join(texts)


def _text(item: Item) -> str:
    parts = item.content if isinstance(item.content, list) else ()
    return "\n".join(part.text for part in parts if part.text is not None)


def _verbosity(said: str | None) -> Json:
    return {} if said is None else {"verbosity": said}


def _format(body: Body) -> Json:
    wanted = body.text.format if body.text is not None else None
    if wanted is None or wanted.type != "json_schema":
        return {"type": wanted.type if wanted is not None else "text"}
    return {
        "type": "json_schema",
        "name": wanted.name or "response",
        "description": wanted.description or "",  # one schema wants it, the other a string
        "schema": wanted.schema,
        "strict": bool(wanted.strict),
    }


def _choice(body: Body) -> Any:
    choice = body.tool_choice
    if choice is None or isinstance(choice, str):
        return choice or "auto"
    if choice.type == "allowed_tools":
        tools = [{"type": tool.type, "name": tool.name} for tool in choice.tools or ()]
        return {"type": "allowed_tools", "mode": choice.mode or "auto", "tools": tools}
    named = {"type": choice.type, "name": choice.name}
    return named if choice.namespace is None else {**named, "namespace": choice.namespace}


def _tool(tool: Any) -> Json | None:
    """A tool that may be called as it was sent; what was left out is not repeated."""
    if tool.type == "namespace":
        inner = [found for found in (_tool(each) for each in tool.tools or ()) if found]
        return {
            "type": "namespace",
            "name": tool.name,
            "description": tool.description or "",
            "tools": inner,
        }
    if tool.type == "custom":
        form = {"format": tool.format} if bytes(tool.format).strip().startswith(b"{") else {}
        return {"type": "custom", "name": tool.name, "description": tool.description or "", **form}
    if tool.type != "function":
        return None
    raw = bytes(tool.parameters).strip()
    return {
        "type": "function",
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters if raw.startswith(b"{") else None,
        "strict": tool.strict,
    }


# ── items ───────────────────────────────────────────────────────────────────────────────────


def text_part(text: str, logprobs: list[Any]) -> Json:
    """A message's part."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def message_item(item_id: str, status: str, content: list[Json]) -> Json:
    """A message of the model's."""
    return {
        "type": "message",
        "id": item_id,
        "status": status,
        "role": "assistant",
        "content": content,
    }


def reasoning_item(
    item_id: str, status: str, text: str, asked: Asked, seal: str | None = None
) -> Json:
    """A thought: its text is its content, and its summary where one was asked for."""
    item: Json = {
        "type": "reasoning",
        "id": item_id,
        "status": status,
        "summary": [{"type": "summary_text", "text": text}] if asked.summary and text else [],
        "content": [{"type": "reasoning_text", "text": text}] if text else [],
    }
    if seal is not None:
        item["encrypted_content"] = seal
    return item


def call_item(
    item_id: str, status: str, call_id: str, name: tuple[str | None, str], arguments: str
) -> Json:
    """A call; a namespaced function goes by its two names."""
    namespace, plain = name
    item = {
        "type": "function_call",
        "id": item_id,
        "status": status,
        "call_id": call_id,
        "name": plain,
        "arguments": arguments,
    }
    return item if namespace is None else {**item, "namespace": namespace}


def custom_item(
    item_id: str, status: str, call_id: str, name: tuple[str | None, str], text: str
) -> Json:
    """A call of a custom tool."""
    item = call_item(item_id, status, call_id, name, "")
    del item["arguments"]
    return {**item, "type": "custom_tool_call", "input": text}


# ── the response ────────────────────────────────────────────────────────────────────────────


def response(asked: Asked, model: str, status: str, output: list[Json], **members: Any) -> Json:
    """The object; ``members`` are what its status adds."""
    blank: Json = {
        "id": asked.response_id,
        "object": "response",
        "created_at": asked.created,
        "completed_at": None,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "model": model,
        "output": output,
        # Counted so far; one published schema wants an object, the other wants it always.
        "usage": usage(Usage()),
    }
    return {**blank, **asked.echo, **members}


def ending(end: Finished) -> tuple[str, Json]:
    """Status, and the members that say why."""
    reason = _INCOMPLETE.get(end.reason)
    if reason is None:
        return "completed", {}
    details: Json = {"reason": reason}
    if end.cut is not None:
        details["helexa"] = {"finish": end.cut}
    return "incomplete", {"incomplete_details": details}


def usage(counts: Usage) -> Json:
    """Exact counts; what a cache was written is not billed apart, so it reads 0."""
    return {
        "input_tokens": counts.prompt,
        "input_tokens_details": {"cached_tokens": counts.cached, "cache_write_tokens": 0},
        "output_tokens": counts.completion,
        "output_tokens_details": {"reasoning_tokens": counts.reasoning},
        "total_tokens": counts.prompt + counts.completion,
    }


def error_members(error: HelexaError) -> Json:
    """Code, message, param and extras, as the envelope of a plain refusal has them."""
    envelope = msgspec.json.decode(errors.render(error, "openai").body)
    inner: Json = envelope["error"]
    return {**inner, "code": inner.get("code") or inner.get("type") or "server_error"}
