"""A source whose models are somewhere else: a folder that only names, sizes and bytes come from."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from helexa.core.errors import ModelNotFound
from helexa.neuron.sources.choice import choose_files
from helexa.neuron.sources.listing import ListedFile, Listing, Progress, Report, listing_of


@dataclass
class Elsewhere:
    """``folder/org/name/…`` as a hub would show it; fetching copies nothing, it only notes."""

    folder: Path
    revision: str = "r1"
    peeked: list[tuple[str, int, int]] = field(default_factory=list)
    fetched: list[str] = field(default_factory=list)

    def claims(self, name: str) -> bool:
        return (self.folder / name).is_dir()

    async def describe(self, name: str, quant: str | None, form: str | None = None) -> Listing:
        del form
        place = self.folder / name
        if not place.is_dir():
            raise ModelNotFound(f"there is no repository {name}", param="model_id")
        names = sorted(p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file())
        choice = choose_files(name, names, quant)
        files = tuple(
            ListedFile(n, (place / n).stat().st_size, digest=f"d{self.revision}")
            for n in choice.files
        )
        return listing_of(name, "hub", files, None, quant=choice.quant, quants=choice.quants,
                          revision=self.revision)  # fmt: skip

    async def peek(self, listing: Listing, file: str, start: int, length: int) -> bytes:
        self.peeked.append((file, start, length))
        data = (self.folder / listing.repository / file).read_bytes()
        return data[start : start + length]

    async def fetch(self, listing: Listing, report: Report) -> Path:
        self.fetched.append(listing.repository)
        report(Progress(listing.bytes_total, listing.bytes_total))
        place = self.folder / listing.repository
        weights = [f.name for f in listing.files if f.name.endswith(".gguf")]
        return place / weights[0] if weights else place
