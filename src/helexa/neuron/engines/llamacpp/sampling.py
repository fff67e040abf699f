"""What a client says about sampling, as far as it could take the engine from everybody.

llama.cpp samples the tokens of all of its slots in one thread, and believes what it is told.
"""

from __future__ import annotations

import re

from helexa.core.errors import InvalidRequestBody, UnsupportedParameter
from helexa.neuron.engines.base import Served
from helexa.neuron.engines.request import Json, wrong

# What is not closed ends with the text; its end would be looked for again from every bracket.
_NO_RULE = re.compile(r'"(?:\\.|[^"\\])*+"?|\[(?:\\.|[^\]\\])*+\]?|#[^\n]*', re.DOTALL)
_REPEAT = re.compile(r"\{\s*(\d+)\s*,\s*(\d+)\s*\}")
_MOST_DIGITS = 9
_LOOKING_BACK = ("repeat_last_n", "dry_penalty_last_n")
_MOST_LISTED = {"samplers": 32, "dry_sequence_breakers": 32}
"""Each of them is gone through for every token, or with every token of the vocabulary; the engine
knows about ten samplers, and four breakers unless told."""
_LEAST_VOCABULARY = 4096
"""Biases that may be given whatever the model's header says; each counts at every token."""
_LAZY = ("grammar_lazy", "grammar_triggers")


def check_sampling(body: Json, served: Served) -> None:
    """Bound it in place.

    Raises:
        InvalidRequestBody, UnsupportedParameter: With the member.
    """
    for name in _LOOKING_BACK:
        # It sets aside memory for as many tokens as it is told to look back to.
        if isinstance(body.get(name), (int, float)):
            body[name] = int(min(body[name], served.plan.context))
    most_listed = {**_MOST_LISTED, "logit_bias": max(served.facts.vocab, _LEAST_VOCABULARY)}
    for name, most in most_listed.items():
        given = body.get(name)
        if isinstance(given, (list, dict, str)) and len(given) > most:
            raise InvalidRequestBody(
                f"`{name}` lists {len(given)}; it may list at most {most}.", param=name
            )
    _check_grammar(body)


def _check_grammar(body: Json) -> None:
    """See that no rule of ``grammar`` is repeated from more to less: llama.cpp counts such a
    repeat down past zero and writes it out until the memory is gone. And that it holds from the
    first token: what would begin it later are regular expressions, tried without an end.
    The rest llama.cpp checks itself.
    """
    for name in _LAZY:
        if body.pop(name, None):
            raise UnsupportedParameter(
                f"`{name}` is not supported: a `grammar` holds from the first token.", param=name
            )
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
