"""What a hub says of a repository, through ``huggingface_hub``.

Imported when a hub is first asked: the package is part of ``helexa[neuron]``, and a node that
serves local files does without it.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import logging
import os
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

import msgspec

from helexa.core.errors import Forbidden, ModelNotFound, ServiceUnavailable
from helexa.neuron.sources.fetching.http import retry_after

TIMEOUT_S = 10.0
_PASSING = frozenset({408, 425, 429})
_PLAIN = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")


class HubUnreachable(Exception):
    """The hub does not answer, or not now."""

    def __init__(self, why: str, retry_after_s: float | None = None) -> None:
        super().__init__(why)
        self.why = why
        self.retry_after_s = retry_after_s


class NotInstalled(ServiceUnavailable):
    """What it takes to ask a hub is not installed."""

    lasting = True


class RemoteFile(msgspec.Struct, frozen=True):
    """One file of a repository; ``tag`` names its content, also as a file; ``digest`` is how to
    check it."""

    name: str
    size: int
    tag: str
    digest: str


class Remote(msgspec.Struct, frozen=True):
    """A repository at one revision."""

    revision: str
    files: tuple[RemoteFile, ...]


class HubApi:
    """One hub. Every method blocks.

    Args:
        scheme: As settings call it, for messages.
        endpoint: Base URL.
        auth_env: Variable with the token, for messages.
        token: The token now, if there is one.
    """

    def __init__(
        self, scheme: str, endpoint: str, auth_env: str, token: Callable[[], str | None]
    ) -> None:
        self.endpoint = endpoint.rstrip("/")
        self.scheme = scheme
        self._auth_env = auth_env
        self._token = token

    def url(self, repository: str, revision: str, name: str) -> str:
        """Where a file is."""
        return f"{self.endpoint}/{repository}/resolve/{quote(revision, safe='')}/{quote(name)}"

    def headers(self) -> dict[str, str]:
        """What goes with every request for a file."""
        token = self._token()
        return {"Authorization": f"Bearer {token}"} if token else {}

    def remote(self, repository: str, revision: str | None = None) -> Remote:
        """The files of a repository, with sizes and digests.

        Raises:
            HubUnreachable: It does not answer, or not now.
            ModelNotFound: It has no such repository; names the nearest one it has.
            Forbidden: It does not let this node see it.
            NotInstalled: ``huggingface_hub`` is missing.
        """
        info = self._asked(
            repository,
            revision,
            lambda api: api.model_info(
                repository, revision=revision, files_metadata=True, timeout=TIMEOUT_S
            ),
        )
        files = tuple(
            _file(sibling) for sibling in info.siblings or [] if _is_inside(sibling.rfilename)
        )
        commit = info.sha or revision or "main"
        if info.sha and not _PLAIN.fullmatch(info.sha):  # a folder is called after it
            raise HubUnreachable(
                f"what answers there is no hub (a commit called {info.sha[:80]!r})"
            )
        return Remote(commit, files)

    def tagged(self, repository: str, revision: str, file: RemoteFile) -> RemoteFile:
        """``file`` with what its own address says of it, for hubs whose lists say too little."""
        if file.tag and file.size >= 0:
            return file
        from huggingface_hub import get_hf_file_metadata  # noqa: PLC0415

        seen = self._asked(
            repository,
            revision,
            lambda _: get_hf_file_metadata(
                self.url(repository, revision, file.name),
                token=self._token() or False,
                timeout=TIMEOUT_S,
                endpoint=self.endpoint,
            ),
        )
        if seen.size is None or not seen.etag:
            raise HubUnreachable(f"it says neither size nor tag of {file.name}")
        return RemoteFile(file.name, seen.size, _file_name(seen.etag), _digest(seen.etag))

    def _asked(self, repository: str, revision: str | None, question: Callable[[Any], Any]) -> Any:
        """The library's answer, its errors as ours."""
        need_library()
        import httpx2  # noqa: PLC0415
        from huggingface_hub import HfApi  # noqa: PLC0415
        from huggingface_hub.errors import (  # noqa: PLC0415
            HfHubHTTPError,
            HFValidationError,
            OfflineModeIsEnabled,
            RevisionNotFoundError,
        )

        api = HfApi(endpoint=self.endpoint, token=self._token() or False)
        try:
            return question(api)
        except RevisionNotFoundError as error:
            raise ModelNotFound(
                f"{repository} has no revision {revision} at {self.endpoint}.", param="model_id"
            ) from error
        except HfHubHTTPError as error:
            response = error.response
            after = retry_after(response.headers.get("Retry-After"))
            raise self._refusal(repository, response.status_code, after, api) from error
        except OfflineModeIsEnabled as error:
            raise HubUnreachable("HF_HUB_OFFLINE is set") from error
        except HFValidationError as error:
            raise ModelNotFound(f"{repository!r}: {error}", param="model_id") from error
        except (httpx2.HTTPError, OSError) as error:
            raise HubUnreachable(str(error) or type(error).__name__) from error
        except (ValueError, TypeError, KeyError) as error:
            raise HubUnreachable(f"what answers there is no hub ({error})") from error

    def _refusal(
        self, repository: str, status: int, after: float | None, api: Any
    ) -> HubUnreachable | ModelNotFound | Forbidden:
        if status in _PASSING or status >= 500:
            return HubUnreachable(f"it answered {status}", after)
        if status == 404:
            near = self._nearest(api, repository)
            hint = f" The nearest it has is {near}." if near else ""
            return ModelNotFound(
                f"{self.endpoint} has no repository {repository}.{hint} Check the spelling; if it "
                f"is private, put a token that may read it into {self._auth_env}.",
                param="model_id",
            )
        if status in (401, 403):
            return self.forbidden(repository, status)
        return HubUnreachable(f"it answered {status}", after)

    def forbidden(self, repository: str, status: int) -> Forbidden:
        """The error for a repository that this node may not read."""
        had = "The token there may not read it" if self._token() else "No token is set"
        return Forbidden(
            f"{self.scheme}:{repository} is gated or private, or does not exist: {self.endpoint} "
            f"answered {status}. {had}: accept its terms on its page, and put a token that may "
            f"read it into {self._auth_env}.",
            param="model_id",
        )

    def _nearest(self, api: Any, repository: str) -> str | None:
        """The repository that was meant, perhaps; a hub that cannot search knows none."""
        owner, _, name = repository.partition("/")
        try:
            found = [m.id for m in api.list_models(author=owner, limit=200)]
            if not found:
                found = [m.id for m in api.list_models(search=name, limit=50)]
        except Exception:  # noqa: BLE001 - a hint is not worth an error
            return None
        lower = {one.lower(): one for one in found}
        near = difflib.get_close_matches(repository.lower(), lower, n=1, cutoff=0.5)
        return lower[near[0]] if near else None


def need_library() -> None:
    """Check that hubs can be asked at all.

    Raises:
        NotInstalled: With the command that installs it.
    """
    if importlib.util.find_spec("huggingface_hub") is None:
        raise NotInstalled(
            "Models from hubs need the package huggingface_hub, which is not installed; run: "
            "pip install 'helexa[neuron]'"
        )
    # Its own notices and counters are nothing that a node should send or print.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    for name in ("httpx2", "httpx", "huggingface_hub"):  # a line per request, otherwise
        logging.getLogger(name).setLevel(logging.ERROR)  # noqa: TID251 - foreign ones, silenced


def _file(sibling: Any) -> RemoteFile:
    """A file of a repository's listing; what the listing does not say is −1 or empty."""
    size = -1 if sibling.size is None else sibling.size
    tag = sibling.lfs.sha256 if sibling.lfs is not None else sibling.blob_id or ""
    return RemoteFile(sibling.rfilename, size, _file_name(tag), _digest(tag))


def _file_name(tag: str) -> str:
    """A tag as the name of a file in the folder of contents, whatever a hub calls them."""
    if not tag or _PLAIN.fullmatch(tag):
        return tag
    return f"tag-{hashlib.sha256(tag.encode('utf-8', 'surrogatepass')).hexdigest()}"


def _digest(tag: str) -> str:
    """How to check a content by its tag: git's id of a blob, a SHA-256, or not at all."""
    if not tag or any(letter not in "0123456789abcdef" for letter in tag):
        return ""
    return {40: f"git-sha1:{tag}", 64: f"sha256:{tag}"}.get(len(tag), "")


def _is_inside(name: str) -> bool:
    """A name that stays in its repository's folder, whatever a hub says."""
    path = PurePosixPath(name)
    return bool(name) and not path.is_absolute() and ".." not in path.parts and "\\" not in name
