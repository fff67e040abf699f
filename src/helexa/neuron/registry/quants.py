"""Whether the files that were found are of the quant that was asked for.

A repository or folder is searched by it, but a file that was named outright, or a folder of
safetensors, is what it is: loading it in silence would serve other weights than the ones asked for,
and mostly larger ones.
"""

from __future__ import annotations

from helexa.core.errors import ModelNotFound
from helexa.neuron.models.facts import ModelFacts
from helexa.neuron.sources.choice import is_meant, plain_quant
from helexa.neuron.sources.listing import Listing


def check_quant(asked: str | None, listing: Listing, facts: ModelFacts) -> None:
    """Pass what is of the quant ``asked``, or does not say what it is; pure.

    Raises:
        ModelNotFound: It is of another one; says which, and what there is.
    """
    found = [quant for quant in (listing.quant, facts.quant, facts.quant_method) if quant]
    if not asked or not found or is_meant(asked, (file.name for file in listing.files)):
        return
    wanted = _plain(asked)
    if any(wanted == _plain(each) or wanted in _plain(each).split("_") for each in found):
        return
    others = f" It has {', '.join(listing.quants)}." if len(listing.quants) > 1 else ""
    raise ModelNotFound(
        f"{listing.name} is {found[0]}, and quant asks for {asked}.{others} Leave quant out, or "
        "name a source that has it.",
        param="quant",
    )


def _plain(quant: str) -> str:
    """One spelling: ``UD-Q4_K_M``, ``q4-k-m``; ``FP16`` and ``F16``; ``AWQ 4-bit``."""
    plain = plain_quant(quant).replace(" ", "_").removeprefix("ud_")
    return {"fp16": "f16", "fp32": "f32"}.get(plain, plain)
