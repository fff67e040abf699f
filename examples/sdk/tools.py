"""A tool call and back: the model asks, we run, the model answers from the result."""

import json
import os
from typing import Any

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:31313/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "any"),
)
TOOLS: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Current weather of a city.",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]


def get_weather(city: str) -> str:
    """A stand-in for something useful."""
    return json.dumps({"city": city, "sky": "clear", "celsius": 21})


messages: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]
first = client.chat.completions.create(
    model="helexa/spark", messages=messages, tools=TOOLS, max_tokens=200
)
message = first.choices[0].message
messages.append(message)
for call in message.tool_calls or []:
    if call.type == "function":
        print(f"{call.function.name}({call.function.arguments})")
        result = get_weather(**json.loads(call.function.arguments))
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
if message.tool_calls:
    second = client.chat.completions.create(
        model="helexa/spark", messages=messages, tools=TOOLS, max_tokens=200
    )
    print(second.choices[0].message.content)
else:
    print(message.content)
