"""Members that another dialect has: who takes them along to a route that does not know them gets
an answer without what they asked for, so they are refused with their name here. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping

from helexa.core.errors import UnsupportedParameter

_SAYS_NOTHING = (b"", b"null", b"[]", b"{}", b'""')
_DEFAULTS = {"n": b"1"}


def refuse_moved(body: object, moved: Mapping[str, str | None]) -> None:
    """Refuse what says something under another dialect's name.

    Args:
        body: Has each of the members as raw JSON.
        moved: Their names, and what each is called here; None where nothing does the same.

    Raises:
        UnsupportedParameter: With the member as ``param``.
    """
    for name, here in moved.items():
        said = bytes(getattr(body, name)).strip()
        if said in _SAYS_NOTHING or said == _DEFAULTS.get(name):
            continue
        cure = f"send `{here}`" if here else "ask /v1/chat/completions"
        raise UnsupportedParameter(
            f"`{name}` is of another dialect and is not read here; {cure}.", param=name
        )
