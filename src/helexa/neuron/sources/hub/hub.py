"""A hub as a source of models.

::

    describe:  what the hub says ─┬─▶ choice of files ─▶ what of them is in the cache
               it does not answer └─▶ what the cache has, if that is a whole model
    fetch:     room on the disk? ─▶ a process brings what is missing ─▶ refs/main
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import msgspec

from helexa.core.errors import Forbidden, HelexaError, ModelNotFound, ServiceUnavailable
from helexa.core.logging import Logger
from helexa.neuron.sources.choice import choose_files
from helexa.neuron.sources.fetching.download import Speed, download
from helexa.neuron.sources.fetching.http import BrokenError, RefusedError, read_part
from helexa.neuron.sources.fetching.job import DownloadError, Failed, Job, Told
from helexa.neuron.sources.hub.api import HubApi, HubUnreachable, Remote, RemoteFile
from helexa.neuron.sources.hub.cache import Cache, no_room
from helexa.neuron.sources.hub.names import HubName, parse_hub_name
from helexa.neuron.sources.listing import ListedFile, Listing, Progress, Report, listing_of
from helexa.neuron.sources.local import read_range

REST_S, LONGEST_REST_S = 10.0, 300.0
"""A hub that could not be reached is not asked again for so long."""

CHANGES = 3
"""Times that a model may change at its hub while it is fetched."""


class DamagedDownload(ServiceUnavailable):
    """What arrives is not what the hub says it is, every time."""

    lasting = True


class Patience(msgspec.Struct, frozen=True):
    """How a download bears with its hub; see ``Job``."""

    idle_s: float = 30.0
    attempts: int = 6
    pause_s: float = 1.0


class Hub:
    """Models of one hub, kept in one cache folder.

    Args:
        offline: Never ask; what the cache has is all there is.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        api: HubApi,
        cache: Cache,
        log: Logger,
        *,
        clock: Callable[[], float],
        offline: bool = False,
        patience: Patience | None = None,
    ) -> None:
        self._api = api
        self._cache = cache
        self._log = log
        self._clock = clock
        self._offline = offline
        self._patience = patience or Patience()
        self._silent_until = 0.0
        self._silent: HubUnreachable | None = None

    def claims(self, name: str) -> bool:
        del name
        return False

    async def describe(self, name: str, quant: str | None, form: str | None = None) -> Listing:
        del form
        wanted = parse_hub_name(name, quant)
        try:
            return await asyncio.to_thread(self._ask, wanted)
        except (HubUnreachable, ModelNotFound, Forbidden) as error:
            return await asyncio.to_thread(self._from_cache, wanted, error)

    async def peek(self, listing: Listing, file: str, start: int, length: int) -> bytes:
        listed = listing.file(file)
        if listed.path is not None:
            return await read_range(listed, start, length)
        repository = HubName.of(listing.repository).repository
        url = self._api.url(repository, listing.revision, file)
        try:
            return await asyncio.to_thread(
                read_part, url, self._api.headers(), start, length, self._patience.idle_s
            )
        except BrokenError as error:
            raise ServiceUnavailable(str(error), retry_after_s=error.retry_after_s) from error
        except RefusedError as error:
            raise self._refused(listing, error.status, str(error)) from error

    async def fetch(self, listing: Listing, report: Report) -> Path:
        for _ in range(CHANGES):
            if listing.path is not None:
                report(Progress(listing.bytes_total, listing.bytes_total))
                return listing.path
            try:
                return await self._fetch(listing, report)
            except DownloadError as error:
                if error.failed.kind not in ("changed", "missing"):
                    raise self._failure(listing, error.failed) from error
                self._log.warning(
                    "a model changed while it was fetched", model=listing.name, why=str(error)
                )
                listing = await self._again(listing)
        raise ServiceUnavailable(
            f"{listing.name} keeps changing at {self._api.endpoint} while it is fetched.",
            retry_after_s=60,
        )

    # ── describing ──────────────────────────────────────────────────────────────────────────

    def _ask(self, wanted: HubName) -> Listing:
        """What the hub says, with what of it is here (blocking)."""
        remote = self._remote(wanted)
        files = {file.name: file for file in remote.files}
        where = f"{self._api.scheme}:{wanted.repository}"
        choice = choose_files(where, list(files), wanted.quant)
        tagged = (
            self._api.tagged(wanted.repository, remote.revision, files[name])
            for name in choice.files
        )
        listed = tuple(
            self._cache.listed(wanted.repository, remote.revision, file) for file in tagged
        )
        return listing_of(
            wanted.repository,
            self._api.scheme,
            listed,
            self._cache.weights(wanted.repository, remote.revision, choice),
            quant=choice.quant,
            quants=choice.quants,
            repository=wanted.full,
            revision=remote.revision,
        )

    def _remote(self, wanted: HubName) -> Remote:
        """The hub's word, unless it has just been silent."""
        if self._offline:
            raise HubUnreachable("HF_HUB_OFFLINE is set")
        if self._silent is not None and self._clock() < self._silent_until:
            raise self._silent.with_traceback(None)  # else it grows with each that it refuses
        try:
            return self._api.remote(wanted.repository, wanted.revision)
        except HubUnreachable as silent:
            self._silent = HubUnreachable(silent.why, silent.retry_after_s)
            rest = min(LONGEST_REST_S, silent.retry_after_s or REST_S)
            self._silent_until = self._clock() + rest
            raise

    def _from_cache(self, wanted: HubName, why: HubUnreachable | HelexaError) -> Listing:
        """What the cache has, when the hub gives no answer or the wrong one (blocking).

        Raises:
            HelexaError: It has no whole model of that name: what the hub said, or did not say.
        """
        cached = self._cache.offline(wanted.repository, wanted.revision, wanted.quant)
        if cached is not None:
            note = f"from the cache {self._cache.root}: {self._words(why)}"
            self._log.warning("a model is taken from the cache", model=wanted.full, why=note)
            return msgspec.structs.replace(cached, repository=wanted.full, note=note)
        if isinstance(why, HelexaError):
            raise why
        raise ServiceUnavailable(
            f"{self._words(why)}, and the cache {self._cache.root} does not hold all of "
            f"{wanted.full}{self._held(wanted)}. Check the network, and the "
            f"endpoint in [sources.{self._api.scheme}].",
            retry_after_s=why.retry_after_s,
        )

    def _held(self, wanted: HubName) -> str:
        """What else the cache has of that repository, in words."""
        quants = self._cache.quants(wanted.repository)
        asked = f" in {wanted.quant}" if wanted.quant else ""
        return f"{asked}; it has {', '.join(quants)}" if quants else asked

    def _words(self, why: HubUnreachable | HelexaError) -> str:
        if isinstance(why, HelexaError):
            return why.message
        return f"{self._api.endpoint} cannot be reached ({why.why})"

    # ── fetching ────────────────────────────────────────────────────────────────────────────

    async def _fetch(self, listing: Listing, report: Report) -> Path:
        """Bring what is missing; the weights' file or folder.

        Raises:
            DownloadError: It ended before everything was here.
        """
        await asyncio.to_thread(self._cache.check_room, listing)
        missing = [file for file in listing.files if file.path is None]
        here = listing.bytes_total - sum(file.size for file in missing)
        speed = Speed(self._clock)

        def told(event: Told) -> None:
            done = min(listing.bytes_total, here + event.done)
            report(Progress(done, listing.bytes_total, event.file, speed.at(event.done)))

        await download(self._job(listing, missing), listing.name, told)
        return await asyncio.to_thread(self._cache.settle, listing)

    def _job(self, listing: Listing, missing: list[ListedFile]) -> Job:
        repository = HubName.of(listing.repository).repository
        jobs = [
            self._cache.job(
                repository,
                listing.revision,
                file,
                self._api.url(repository, listing.revision, file.name),
            )
            for file in missing
        ]
        return Job(
            first=tuple(job for job in jobs if not is_weights(job.name)),
            then=tuple(job for job in jobs if is_weights(job.name)),
            headers=self._api.headers(),
            idle_s=self._patience.idle_s,
            attempts=self._patience.attempts,
            pause_s=self._patience.pause_s,
        )

    async def _again(self, listing: Listing) -> Listing:
        """The same model as its hub describes it now."""
        first = next((f.name for f in reversed(listing.files) if f.name.endswith(".gguf")), None)
        wanted = parse_hub_name(listing.repository, listing.quant or first)
        try:
            fresh = await asyncio.to_thread(self._ask, wanted)
        except HubUnreachable as why:
            raise ServiceUnavailable(
                f"{self._words(why)}.", retry_after_s=why.retry_after_s
            ) from why
        return msgspec.structs.replace(fresh, name=listing.name, scheme=listing.scheme)

    def _failure(self, listing: Listing, failed: Failed) -> HelexaError:
        """A failed download as an error of the tree."""
        if failed.kind == "full":
            missing = self._missing(listing)
            return no_room(self._cache.root, listing.name, missing, self._cache.free())
        if failed.kind == "refused" and failed.status is not None:
            return self._refused(listing, failed.status, failed.message)
        words = f"{listing.name} could not be fetched: {failed.message}."
        if failed.kind == "corrupt":
            return DamagedDownload(f"{words} Ask the hub's owner, or use another repository.")
        if failed.kind == "unwritable":
            return ServiceUnavailable(f"{words} Check the cache folder {self._cache.root}.")
        kept = " What has arrived is kept." if listing.bytes_total else ""
        return ServiceUnavailable(f"{words}{kept}", retry_after_s=failed.retry_after_s)

    def _missing(self, listing: Listing) -> int:
        """Bytes of ``listing`` that are not here: some came before the disk was full."""
        repository = HubName.of(listing.repository).repository
        remote = (RemoteFile(f.name, f.size, f.tag, f.digest) for f in listing.files)
        return sum(self._cache.listed(repository, listing.revision, f).missing for f in remote)

    def _refused(self, listing: Listing, status: int, message: str) -> HelexaError:
        if status in (401, 403):
            return self._api.forbidden(HubName.of(listing.repository).repository, status)
        return ModelNotFound(f"{listing.name} cannot be fetched: {message}.", param="model_id")


def is_weights(name: str) -> bool:
    """Whether a file holds the model itself; what goes with it is fetched before."""
    return name.endswith((".gguf", ".safetensors")) and "mmproj" not in name
