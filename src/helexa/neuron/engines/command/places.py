"""The places in an operator's command line, and what they are filled with."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from helexa.core.settings import SettingsError
from helexa.core.settings_keys import nearest

_PLACE = re.compile(r"\{\{(\w+)\}\}|\{(\w+)\}")

KNOWN: Mapping[str, str] = {
    "model": "path of the model: the GGUF file, or the folder with safetensors",
    "served_id": "id under which the node serves it",
    "host": "address to listen on; always the loopback",
    "port": "port to listen on",
    "context": "tokens of one request, prompt and answer",
    "slots": "requests that run at once",
    "total_context": "context times slots, for servers that divide one pool",
    "devices": "indices of the GPUs to use, as 0,1; empty for the CPU",
    "tensor_parallel": "how many GPUs that is; 1 for the CPU",
    "gpu_layers": "layers on the GPUs",
    "threads": "CPU threads",
    "key_file": "file with the key to demand, readable by the node's user only",
    "env_file": "such a file with the line NAME=key, NAME being key_name",
}
"""Places by name, with what stands there."""

_NEVER = {
    "key": "a key in a command line or an environment can be read by others on the host; let the "
    "server read it from {key_file}, or from {env_file}"
}


def check_places(texts: Iterable[str], where: str) -> None:
    """See that every place is known.

    Args:
        where: Path of the setting, for the message.

    Raises:
        SettingsError: With the place, what may have been meant, and all that are known.
    """
    for text in texts:
        for literal, name in _PLACE.findall(text):
            if literal or name in KNOWN:
                continue
            if name in _NEVER:
                raise SettingsError(f"{where} has the place {{{name}}}: {_NEVER[name]}")
            meant = nearest(name, KNOWN)
            hint = f" (did you mean {{{meant}}}?)" if meant else ""
            known = ", ".join(f"{{{place}}}" for place in KNOWN)
            raise SettingsError(f"{where} has an unknown place {{{name}}}{hint}; known are {known}")


def fill(text: str, values: Mapping[str, object]) -> str:
    """``text`` with its places filled; ``{{name}}`` is a literal ``{name}``."""

    def put(found: re.Match[str]) -> str:
        literal, name = found.groups()
        return f"{{{literal}}}" if literal is not None else str(values.get(name, found[0]))

    return _PLACE.sub(put, text)


def uses(texts: Iterable[str], place: str) -> bool:
    """Whether any of ``texts`` has the place."""
    return any(name == place for text in texts for _, name in _PLACE.findall(text))
