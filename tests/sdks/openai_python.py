"""What the official Python client of any version does against a gateway; run by ``test_matrix``.

    python openai_python.py URL KEY

Prints one line per thing that worked; raises on the first that did not.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Literal

import openai
from pydantic import BaseModel

URL, KEY = sys.argv[1:]
MODEL = "helexa/spark"
ASK: Any = [{"role": "user", "content": "Repeat: house garden"}]
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string", "enum": ["paris"]}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL: Any = {
    "type": "function",
    "function": {"name": "get_weather", "description": "Weather of a city",
                 "parameters": PARAMETERS},
}  # fmt: skip
PIXEL = "data:image/png;base64,AA=="


class Fruit(BaseModel):
    """For parsed output."""

    colour: Literal["red", "green"]
    ripe: bool


def client(key: str = KEY, retries: int = 0, *, strict: bool = True) -> openai.OpenAI:
    return openai.OpenAI(
        base_url=f"{URL}/v1", api_key=key, max_retries=retries,
        _strict_response_validation=strict,
    )  # fmt: skip


def chat(sdk: openai.OpenAI, **more: Any) -> Any:
    given = {"model": MODEL, "messages": ASK, "temperature": 0, "max_tokens": 60, **more}
    return sdk.chat.completions.create(**given)


def text(sdk: openai.OpenAI) -> None:
    answer = chat(sdk)
    assert "house" in answer.choices[0].message.content
    assert answer.usage.completion_tokens > 0


def stream(sdk: openai.OpenAI) -> None:
    said, usage = "", None
    for chunk in chat(sdk, stream=True, stream_options={"include_usage": True}):
        said += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        usage = chunk.usage or usage
    plain = chat(sdk)
    assert said == plain.choices[0].message.content
    assert usage is not None
    assert usage.completion_tokens == plain.usage.completion_tokens


def tools_round_trip(sdk: openai.OpenAI) -> None:
    question: Any = {"role": "user", "content": "What is the weather in Paris?"}
    first = chat(sdk, messages=[question], tools=[TOOL], tool_choice="required")
    message = first.choices[0].message
    [call] = message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "paris"}
    assert first.choices[0].finish_reason == "tool_calls"
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    turn = message.model_dump(exclude_none=True)
    assert chat(sdk, messages=[question, turn, result], tools=[TOOL]).choices


def parsed_structured_output(sdk: openai.OpenAI) -> None:
    api = getattr(sdk.chat.completions, "parse", None) or sdk.beta.chat.completions.parse
    answer = api(model=MODEL, messages=ASK, response_format=Fruit, max_tokens=100, temperature=2)
    assert isinstance(answer.choices[0].message.parsed, Fruit)


def reasoning(sdk: openai.OpenAI) -> None:
    message = chat(sdk, extra_body={"reasoning_effort": "low"}).choices[0].message
    assert message.reasoning_content  # a member of ours, kept as an extra one
    assert "think>" not in message.content


def images_refused(sdk: openai.OpenAI) -> None:
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": PIXEL}}]}
    refused(openai.BadRequestError, "vision_unsupported", lambda: chat(sdk, messages=[image]))


def error_classes(sdk: openai.OpenAI) -> None:
    refused(openai.NotFoundError, "model_not_found", lambda: chat(sdk, model="no/such"))
    long: Any = [{"role": "user", "content": "word " * 30_000}]
    refused(openai.BadRequestError, "context_length_exceeded", lambda: chat(sdk, messages=long))


def retry_behaviour(sdk: openai.OpenAI) -> None:
    with client("sk-spent", 2, strict=False) as spent:
        refused(openai.RateLimitError, "insufficient_quota", lambda: chat(spent))


def responses(sdk: openai.OpenAI) -> None:
    asked: Any = {"model": MODEL, "input": "Repeat: house garden", "temperature": 0,
                  "max_output_tokens": 60}  # fmt: skip
    plain = sdk.responses.create(**asked)
    assert "house" in plain.output_text
    with sdk.responses.stream(**asked) as events:
        said = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    assert said == plain.output_text
    again = sdk.responses.create(**{**asked, "previous_response_id": plain.id})
    assert again.status == "completed"


def models_and_embeddings(sdk: openai.OpenAI) -> None:
    assert MODEL in {model.id for model in sdk.models.list()}
    assert sdk.models.retrieve(MODEL).id == MODEL


def refused(kind: type[openai.APIStatusError], code: str, ask: Any) -> None:
    found = None
    try:
        ask()
    except kind as error:
        found = error.code
    assert found == code, (found, code)


if __name__ == "__main__":
    print(json.dumps({"openai": openai.__version__}))
    with client() as shared:
        for step in (text, stream, tools_round_trip, parsed_structured_output, reasoning,
                     images_refused, error_classes, retry_behaviour, responses,
                     models_and_embeddings):  # fmt: skip
            step(shared)
            print("ok", step.__name__, flush=True)
