#!/bin/sh
# One question, one answer.
curl -sS --fail-with-body "${OPENAI_BASE_URL:-http://127.0.0.1:31313/v1}/chat/completions" \
  -H 'content-type: application/json' \
  -d '{
    "model": "helexa/spark",
    "max_tokens": 200,
    "messages": [{"role": "user", "content": "What is the capital of France?"}]
  }'
