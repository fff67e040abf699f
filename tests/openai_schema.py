"""OpenAI's own word on what its dialect's bodies look like.

The official SDK's types always; and, where a copy of OpenAI's published OpenAPI document is at
hand (``OPENAI_OPENAPI`` names it, or it lies under ``shared/schemas`` beside the checkout), that
document's schemas too. The document is not part of this project.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

_SDK: dict[str, type[BaseModel]] = {
    "CreateChatCompletionResponse": ChatCompletion,
    "CreateChatCompletionStreamResponse": ChatCompletionChunk,
    "CreateCompletionResponse": Completion,
    "CreateEmbeddingResponse": CreateEmbeddingResponse,
    "Model": Model,
}


@cache
def document() -> dict[str, Any] | None:
    """The OpenAPI document; None where there is no copy."""
    places = [parent / "shared" / "schemas" for parent in Path(__file__).resolve().parents]
    paths = [folder / "openai-subset.json" for folder in places]
    if named := os.environ.get("OPENAI_OPENAPI"):
        paths.insert(0, Path(named))
    found = next((path for path in paths if path.is_file()), None)
    return None if found is None else _with_nulls(json.loads(found.read_text()))


def _with_nulls(schema: Any) -> Any:
    """``nullable`` is a word of an older OpenAPI that the document still uses here and there."""
    if isinstance(schema, list):
        return [_with_nulls(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    out = {name: _with_nulls(value) for name, value in schema.items()}
    if out.pop("nullable", False) is True:
        return {"anyOf": [out, {"type": "null"}]}
    return out


@cache
def _validator(name: str) -> Draft202012Validator | None:
    known = document()
    if known is None:
        return None
    schema = {"$ref": f"#/components/schemas/{name}", "components": known["components"]}
    return Draft202012Validator(schema)


def validate(name: str, body: Any) -> None:
    """Hold a decoded body against a schema by its name in the document.

    Raises:
        AssertionError: With the first few places where it is not valid.
    """
    if name in _SDK:
        _SDK[name].model_validate_json(json.dumps(body), strict=True)
    validator = _validator(name)
    if validator is not None:
        wrong = [f"{e.json_path}: {e.message[:200]}" for e in validator.iter_errors(body)]
        assert not wrong, wrong[:5]
