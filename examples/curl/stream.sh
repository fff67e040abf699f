#!/bin/sh
# An answer as it is made: server-sent events, closed by [DONE].
curl -sSN --fail-with-body "${OPENAI_BASE_URL:-http://127.0.0.1:31313/v1}/chat/completions" \
  -H 'content-type: application/json' \
  -d '{
    "model": "helexa/spark",
    "stream": true,
    "stream_options": {"include_usage": true},
    "max_tokens": 200,
    "messages": [{"role": "user", "content": "Repeat: good morning"}]
  }'
