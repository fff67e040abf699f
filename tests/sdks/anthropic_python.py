"""What Anthropic's Python client of any version does against a gateway; run by ``test_matrix``.

    python anthropic_python.py URL KEY

Prints one line per thing that worked; raises on the first that did not.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import anthropic

URL, KEY = sys.argv[1:]
MODEL = "helexa/spark"
ASK: Any = [{"role": "user", "content": "Repeat: house garden"}]
TOOL: Any = {
    "name": "get_weather",
    "description": "Weather of a city",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["paris"]}},
        "required": ["city"],
    },
}
SCHEMA: Any = {
    "type": "object",
    "properties": {"ripe": {"type": "boolean"}},
    "required": ["ripe"],
    "additionalProperties": False,
}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}}


def client(key: str = KEY, retries: int = 0) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=URL, api_key=key, max_retries=retries)


def ask(sdk: anthropic.Anthropic, **more: Any) -> Any:
    # The newest versions know no temperature of their own.
    body = {"temperature": 0, **more.pop("extra_body", {})}
    return sdk.messages.create(
        **{"model": MODEL, "max_tokens": 60, "messages": ASK, "extra_body": body, **more}
    )


def text(sdk: anthropic.Anthropic) -> None:
    message = ask(sdk)
    assert "house" in message.content[0].text
    assert message.stop_reason == "end_turn"


def stream(sdk: anthropic.Anthropic) -> None:
    plain = ask(sdk)
    given: Any = {"model": MODEL, "max_tokens": 60, "messages": ASK}
    with sdk.messages.stream(**given, extra_body={"temperature": 0}) as events:
        said = "".join(events.text_stream)
        final = events.get_final_message()
    assert said == plain.content[0].text
    assert final.usage.output_tokens == plain.usage.output_tokens
    assert final.usage.input_tokens <= plain.usage.input_tokens


def tools_round_trip(sdk: anthropic.Anthropic) -> None:
    question: Any = {"role": "user", "content": "What is the weather in Paris?"}
    first = ask(sdk, messages=[question], tools=[TOOL], tool_choice={"type": "any"})
    [call] = [block for block in first.content if block.type == "tool_use"]
    assert call.input == {"city": "paris"}
    assert first.stop_reason == "tool_use"
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "sunny"}
    turns = [question, {"role": "assistant", "content": first.content},
             {"role": "user", "content": [result]}]  # fmt: skip
    assert ask(sdk, messages=turns, tools=[TOOL]).content


def structured_output(sdk: anthropic.Anthropic) -> None:
    wanted = {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}
    message = ask(sdk, extra_body={**wanted, "temperature": 2})
    assert isinstance(json.loads(message.content[-1].text)["ripe"], bool)


def reasoning(sdk: anthropic.Anthropic) -> None:
    message = ask(sdk, extra_body={"thinking": {"type": "enabled", "budget_tokens": 1024}},
                  max_tokens=2000)  # fmt: skip
    assert message.content[0].type == "thinking"
    assert message.content[0].thinking


def images_refused(sdk: anthropic.Anthropic) -> None:
    image = {"role": "user", "content": [IMAGE]}
    refused(anthropic.BadRequestError, lambda: ask(sdk, messages=[image]))


def token_counting(sdk: anthropic.Anthropic) -> None:
    counted = sdk.messages.count_tokens(model=MODEL, messages=ASK)
    usage = ask(sdk).usage
    cached = (usage.cache_read_input_tokens or 0) + (usage.cache_creation_input_tokens or 0)
    assert counted.input_tokens == usage.input_tokens + cached


def error_classes(sdk: anthropic.Anthropic) -> None:
    refused(anthropic.NotFoundError, lambda: ask(sdk, model="no/such"))
    long: Any = [{"role": "user", "content": "word " * 30_000}]
    said = refused(anthropic.BadRequestError, lambda: ask(sdk, messages=long))
    assert "prompt is too long" in said


def retry_behaviour(sdk: anthropic.Anthropic) -> None:
    with client("sk-spent", 2) as spent:
        refused(anthropic.RateLimitError, lambda: ask(spent))


def models(sdk: anthropic.Anthropic) -> None:
    assert MODEL in {model.id for model in sdk.models.list()}


def refused(kind: type[anthropic.APIStatusError], asking: Any) -> str:
    try:
        asking()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


if __name__ == "__main__":
    print(json.dumps({"anthropic": anthropic.__version__}))
    with client() as shared:
        for step in (text, stream, tools_round_trip, structured_output, reasoning, images_refused,
                     token_counting, error_classes, retry_behaviour, models):  # fmt: skip
            step(shared)
            print("ok", step.__name__, flush=True)
