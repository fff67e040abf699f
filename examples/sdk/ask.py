"""One question, one answer, and what it cost."""

from openai import OpenAI

client = OpenAI()  # reads OPENAI_BASE_URL and OPENAI_API_KEY
answer = client.chat.completions.create(
    model="helexa/spark",
    messages=[{"role": "user", "content": "What is the capital of France?"}],
    max_tokens=200,
)
print(answer.choices[0].message.content)
if answer.usage is not None:
    print(f"{answer.usage.prompt_tokens} + {answer.usage.completion_tokens} tokens")
