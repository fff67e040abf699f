"""The same model in Anthropic's dialect: counted, then answered."""

from anthropic import Anthropic
from anthropic.types import MessageParam

client = Anthropic()  # reads ANTHROPIC_BASE_URL (without /v1) and ANTHROPIC_API_KEY
question: MessageParam = {"role": "user", "content": "What is the capital of France?"}
counted = client.messages.count_tokens(model="helexa/spark", messages=[question])
with client.messages.stream(model="helexa/spark", max_tokens=200, messages=[question]) as stream:
    for text in stream.text_stream:
        print(text, end="", flush=True)
print(f"\n{counted.input_tokens} prompt tokens")
