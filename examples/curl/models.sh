#!/bin/sh
# What the fleet can serve, warm or cold.
curl -sS --fail-with-body "${OPENAI_BASE_URL:-http://127.0.0.1:31313/v1}/models"
