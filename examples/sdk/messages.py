"""The same model in Anthropic's dialect: counted, then answered."""

import os

from anthropic import Anthropic
from anthropic.types import MessageParam

client = Anthropic(
    base_url=os.environ.get("ANTHROPIC_BASE_URL", "http://127.0.0.1:31313"),  # without /v1
    api_key=os.environ.get("ANTHROPIC_API_KEY", "any"),
)
question: MessageParam = {"role": "user", "content": "What is the capital of France?"}
counted = client.messages.count_tokens(model="helexa/spark", messages=[question])
with client.messages.stream(model="helexa/spark", max_tokens=200, messages=[question]) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
print(f"\n{counted.input_tokens} prompt tokens")
