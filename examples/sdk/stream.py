"""An answer as it is made; the last chunk says what it cost."""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:31313/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "any"),
)
stream = client.chat.completions.create(
    model="helexa/spark",
    messages=[{"role": "user", "content": "Count to ten."}],
    max_tokens=200,
    stream=True,
    stream_options={"include_usage": True},
)
for chunk in stream:
    for choice in chunk.choices:
        print(choice.delta.content or "", end="", flush=True)
    if chunk.usage is not None:
        print(f"\n{chunk.usage.completion_tokens} tokens")
