"""Names of models on a hub.

::

    org/name                      the repository
    org/name:Q4_K_M               one of its quants, as llama.cpp and Ollama write it
    org/name/folder/file.gguf     one of its files
    org/name@v1.0                 at a branch, tag or commit; goes with both of the others
"""

from __future__ import annotations

import re

import msgspec

from helexa.core.errors import InvalidRequestBody, ModelNotFound

_NAME = re.compile(
    r"(?P<repository>[\w.-]+/[\w.-]+)"
    r"(?:@(?P<revision>[\w.-][\w./-]*?))?"
    r"(?:/(?P<file>[\w./ -]+\.gguf))?"
    r"(?::(?P<tag>[\w.-]+))?"
)


class HubName(msgspec.Struct, frozen=True):
    """A parsed name; ``quant`` is a tag or a file."""

    repository: str
    revision: str | None = None
    quant: str | None = None

    @property
    def full(self) -> str:
        """The repository, with its branch if one was named."""
        return f"{self.repository}@{self.revision}" if self.revision else self.repository

    @classmethod
    def of(cls, full: str) -> HubName:
        """What ``full`` was made of."""
        repository, _, revision = full.partition("@")
        return cls(repository, revision or None)


def parse_hub_name(name: str, quant: str | None) -> HubName:
    """What ``name`` means, with the quant that was asked for beside it; pure.

    Raises:
        ModelNotFound: It is no name of a repository.
        InvalidRequestBody: Its tag and ``quant`` contradict each other.
    """
    match = _NAME.fullmatch(name)
    if match is None or ".." in name:
        raise ModelNotFound(
            f"model {name} is neither a file here nor the name of a repository (org/name).",
            param="model_id",
        )
    tag = match["file"] or (match["tag"] if match["tag"] != "latest" else None)
    if tag and quant and tag.lower() != quant.lower():
        raise InvalidRequestBody(
            f"model_id {name!r} asks for {tag}, and quant for {quant}. Leave one of them out.",
            param="quant",
        )
    return HubName(match["repository"], match["revision"], tag or quant)
