"""Reasoning comes in a field of its own, when it is asked for."""

from openai import OpenAI

client = OpenAI()  # reads OPENAI_BASE_URL and OPENAI_API_KEY
answer = client.chat.completions.create(
    model="helexa/spark",
    messages=[{"role": "user", "content": "What is 3 + 4?"}],
    max_tokens=200,
    extra_body={"chat_template_kwargs": {"enable_thinking": True}},
)
message = answer.choices[0].message
print("thought:", (message.model_extra or {}).get("reasoning_content"))
print("answer: ", message.content)
