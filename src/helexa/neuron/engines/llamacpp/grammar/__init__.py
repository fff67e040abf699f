"""JSON Schema to llama.cpp's grammars (GBNF), pure.

llama.cpp's own converter leaves out keywords that it does not know, and lets a model talk
before a call that it was told to make. Here a keyword is compiled or refused by its path; what
the grammar accepts is always a subset of what the schema does. Nothing here knows requests.
"""

from helexa.neuron.engines.llamacpp.grammar.relax import relax
from helexa.neuron.engines.llamacpp.grammar.schema import Uncompilable, compile_schema
from helexa.neuron.engines.llamacpp.grammar.text import Grammar, literal, until

__all__ = ["Grammar", "Uncompilable", "compile_schema", "literal", "relax", "until"]
