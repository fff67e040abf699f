"""What LangChain does with the module that we print for it; run by ``test_matrix``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

space: dict[str, Any] = {}
exec(Path(sys.argv[1]).read_text(), space)  # the very file that a user gets
model = space["model"].bind(temperature=0)


class Fruit(BaseModel):
    """A fruit."""

    colour: Literal["red", "green"]


def get_weather(city: Literal["paris"]) -> str:
    """Weather of a city."""
    return city


answer = model.invoke("Repeat: house garden")
assert "house" in answer.content
assert answer.usage_metadata["output_tokens"] > 0
print("ok text")
assert "".join(piece.content for piece in model.stream("Repeat: house garden")) == answer.content
print("ok stream")
called = space["model"].bind_tools([get_weather], tool_choice="any").invoke("Weather in Paris?")
assert called.tool_calls[0]["args"] == {"city": "paris"}
print("ok tools")
assert isinstance(space["model"].with_structured_output(Fruit).invoke("A fruit?"), Fruit)
print("ok structured")
