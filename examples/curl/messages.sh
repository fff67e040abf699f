#!/bin/sh
# The same question in Anthropic's dialect.
curl -sS --fail-with-body "${OPENAI_BASE_URL:-http://127.0.0.1:31313/v1}/messages" \
  -H 'content-type: application/json' \
  -H 'anthropic-version: 2023-06-01' \
  -d '{
    "model": "helexa/spark",
    "max_tokens": 200,
    "messages": [{"role": "user", "content": "What is the capital of France?"}]
  }'
