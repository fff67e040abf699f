"""A client's own grammar, as far as it could take the engine from everybody."""

from __future__ import annotations

import re

from helexa.core.errors import InvalidRequestBody
from helexa.neuron.engines.request import Json, wrong

_NO_RULE = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|#[^\n]*', re.DOTALL)
_REPEAT = re.compile(r"\{\s*(\d+)\s*,\s*(\d+)\s*\}")
_MOST_DIGITS = 9


def check_grammar(body: Json) -> None:
    """See that no rule of ``grammar`` is repeated from more to less: llama.cpp counts such a
    repeat down past zero and writes it out until the memory is gone. The rest it checks itself.

    Raises:
        InvalidRequestBody: With the repeat.
    """
    grammar = body.get("grammar")
    if grammar is None:
        return
    if not isinstance(grammar, str):
        raise wrong("grammar", "a string", grammar)
    for repeat in _REPEAT.finditer(_NO_RULE.sub(" ", grammar)):
        low, high = repeat.groups()
        if max(len(low), len(high)) > _MOST_DIGITS or int(low) > int(high):
            raise InvalidRequestBody(
                f"`grammar` has the repeat {repeat[0][:40]}; write the smaller number first.",
                param="grammar",
            )
