"""The environment an engine process gets."""

from __future__ import annotations

import re
from collections.abc import Mapping

_OURS = ("HELEXA_", "CORTEX_", "NEURON_", "BENCH_")
_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|CREDENTIALS?)$")


def engine_environ(environ: Mapping[str, str], **extra: str) -> dict[str, str]:
    """``environ`` without our own settings and without what looks like a secret, plus ``extra``.

    Library paths and device choices of the operator go through.
    """
    kept = {
        name: value
        for name, value in environ.items()
        if not name.startswith(_OURS) and not _SECRET.search(name)
    }
    return kept | extra
