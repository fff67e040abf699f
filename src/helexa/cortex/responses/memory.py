"""A shelf in memory: for the anonymous, whose responses need not last."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from helexa.cortex.responses.base import LONGEST_CHAIN, Kept


class MemoryShelf:
    """Bounded in bytes and in time; the oldest leave first.

    Args:
        now: Epoch seconds.
        ttl_s: Seconds that a response is kept.
        max_bytes: Of all bodies together.
    """

    def __init__(self, now: Callable[[], float], *, ttl_s: float, max_bytes: int) -> None:
        self._now = now
        self._ttl_s = ttl_s
        self._max_bytes = max_bytes
        self._kept: OrderedDict[tuple[str, str], Kept] = OrderedDict()
        self._items: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.size = 0

    def put(self, owner: str, kept: Kept) -> None:
        """See ``Shelf``; so are all below."""
        self.delete(owner, kept.response_id)
        self._kept[owner, kept.response_id] = kept
        self.size += kept.size
        for item in kept.items:
            self._items[owner, item.item_id] = (kept.response_id, item.body)
        self.sweep()

    def find(self, owner: str, response_id: str) -> bytes | None:
        kept = self._living(owner, response_id)
        return None if kept is None else kept.body

    def inputs(self, owner: str, response_id: str) -> list[bytes] | None:
        kept = self._living(owner, response_id)
        return None if kept is None else [i.body for i in kept.items if not i.output]

    def history(self, owner: str, response_id: str) -> list[bytes] | None:
        chain: list[Kept] = []
        wanted: str | None = response_id
        while wanted is not None:
            kept = self._living(owner, wanted)
            if kept is None or len(chain) >= LONGEST_CHAIN:
                return None
            chain.append(kept)
            wanted = kept.previous
        return [item.body for kept in reversed(chain) for item in kept.items]

    def named(self, owner: str, item_ids: Sequence[str]) -> dict[str, bytes]:
        found = {}
        for item_id in item_ids:
            response_id, body = self._items.get((owner, item_id), ("", b""))
            if response_id and self._living(owner, response_id) is not None:
                found[item_id] = body
        return found

    def delete(self, owner: str, response_id: str) -> bool:
        living = self._living(owner, response_id) is not None
        self._drop((owner, response_id))
        return living

    def sweep(self) -> None:
        oldest = self._now() - self._ttl_s
        while self._kept:
            key, kept = next(iter(self._kept.items()))
            if kept.at >= oldest and self.size <= self._max_bytes:
                return
            self._drop(key)

    def give_up(self) -> None:
        """Nothing of it waits for anybody."""

    def close(self) -> None:
        self._kept.clear()
        self._items.clear()
        self.size = 0

    def _living(self, owner: str, response_id: str) -> Kept | None:
        kept = self._kept.get((owner, response_id))
        return kept if kept is not None and kept.at >= self._now() - self._ttl_s else None

    def _drop(self, key: tuple[str, str]) -> None:
        kept = self._kept.pop(key, None)
        if kept is None:
            return
        self.size -= kept.size
        for item in kept.items:
            named = (key[0], item.item_id)
            if self._items.get(named, ("", b""))[0] == kept.response_id:
                del self._items[named]
