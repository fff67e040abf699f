"""New secrets, and what may be a name."""

from __future__ import annotations

import re
import secrets
import string
from hashlib import sha256

from helexa.core.errors import InvalidRequestBody
from helexa.core.principal import ANONYMOUS
from helexa.core.settings import Secret
from helexa.cortex.ledger.keys import SecretRecord

PREFIX = "sk-hx-"
SHOWN = len(PREFIX) + 6
"""Letters of a secret that may be shown; 40 random ones stay hidden, some 238 bits."""

_LETTERS = string.ascii_letters + string.digits
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")


def letters(count: int) -> str:
    """Random letters and digits."""
    return "".join(secrets.choice(_LETTERS) for _ in range(count))


def mint(key_id: str, now: float) -> tuple[Secret, SecretRecord]:
    """A secret for a key, and what may be kept of it."""
    text = PREFIX + letters(46)
    digest = sha256(text.encode()).digest()
    return Secret(text), SecretRecord(digest, key_id, text[:SHOWN], now)


def check_name(name: str, param: str) -> None:
    """Return if ``name`` can be an id: it goes into paths, metric labels and log lines.

    Raises:
        InvalidRequestBody: It cannot.
    """
    if not _NAME.fullmatch(name) or name == ANONYMOUS.key_id:
        raise InvalidRequestBody(
            f"{param} must be 1 to 64 letters, digits or any of . _ @ - and begin with a letter "
            f"or digit, and not be {ANONYMOUS.key_id!r}.",
            param=param,
        )
