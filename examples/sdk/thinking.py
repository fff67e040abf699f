"""Reasoning comes in a field of its own, when it is asked for."""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:31313/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "any"),
)
answer = client.chat.completions.create(
    model="helexa/spark",
    messages=[{"role": "user", "content": "What is 3 + 4?"}],
    max_tokens=200,
    extra_body={"chat_template_kwargs": {"enable_thinking": True}},
)
message = answer.choices[0].message
print("thought:", (message.model_extra or {}).get("reasoning_content"))
print("answer: ", message.content)
