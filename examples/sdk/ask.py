"""One question, one answer, and what it cost."""

import os

from openai import OpenAI

client = OpenAI(
    base_url=os.environ.get("OPENAI_BASE_URL", "http://127.0.0.1:31313/v1"),
    api_key=os.environ.get("OPENAI_API_KEY", "any"),
)
answer = client.chat.completions.create(
    model="helexa/spark",
    messages=[{"role": "user", "content": "What is the capital of France?"}],
    max_tokens=200,
)
print(answer.choices[0].message.content)
if answer.usage is not None:
    print(f"{answer.usage.prompt_tokens} + {answer.usage.completion_tokens} tokens")
