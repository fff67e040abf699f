"""What routing knows about one request before it is placed."""

from __future__ import annotations

from hashlib import sha256

import msgspec


class Ask(msgspec.Struct, gc=False, eq=False):
    """A prompt as routing sees it.

    Args:
        points: Hashes that name the prompt up to a position, shallowest first; equal beginnings
            have equal points, within one process.
        sizes: Where they stand, in bytes of the canonical prompt (see ``routing.prompt``).
        size: Bytes of the whole.
        seed: Breaks ties: stable over a conversation, different between conversations.
        per_byte: Tokens per byte, as learned for the model.
        name: What to make the seed of, where there is no number yet.
    """

    points: list[int] = []
    sizes: list[int] = []
    size: int = 0
    seed: int = 0
    per_byte: float = 0.25
    name: bytes = b""

    @property
    def lot(self) -> int:
        """What breaks ties, the same in every gateway; made here, because few requests meet one."""
        return int.from_bytes(sha256(self.name).digest()[:8]) if self.name else self.seed

    @property
    def tokens(self) -> float:
        """The prompt's tokens, as far as its bytes tell."""
        return self.size * self.per_byte

    def __repr__(self) -> str:
        return f"Ask({self.size} bytes, {len(self.points)} points)"
