"""config.toml of the agent, or the environment alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from helexa.core.folders import user_folder
from helexa.core.settings import Loaded, Secret, SettingsError, as_header, load
from helexa.relay.client import parse_url

LOCAL = "http://127.0.0.1:31313/v1"
PREFIX = "HELEXA_ACP_"
Wire = Literal["chat", "responses", "messages"]
_ALIASES: dict[str, Wire] = {
    "openai-chat": "chat",
    "openai-responses": "responses",
    "anthropic-messages": "messages",
    "chat": "chat",
    "responses": "responses",
    "messages": "messages",
}
_OWN = ("BASE_URL", "MODEL", "API_KEY", "MAX_TOKENS", "CONTEXT_WINDOW", "SYSTEM_PROMPT_PATH",
        "LOG_FILE", "CONFIG_PATH")  # fmt: skip


class Endpoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[endpoints]]``.

    Args:
        name: What it is called in the editor.
        base_url: With or without ``/v1``.
        wire_api: The dialect it is spoken to in.
        default_model: Else its first model that can chat.
        api_key: The key to ask with.
        api_key_env: Environment variable that holds it.
        max_tokens: Output cap of one answer; absent, the endpoint decides.
        context_window: Tokens, where the endpoint does not say.
    """

    name: str
    base_url: str
    wire_api: Literal[
        "chat", "responses", "messages", "openai-chat", "openai-responses", "anthropic-messages"
    ] = "chat"
    default_model: str | None = None
    api_key: Secret | None = None
    api_key_env: str | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    context_window: Annotated[int, msgspec.Meta(ge=1)] | None = None

    @property
    def wire(self) -> Wire:
        """The dialect's short name."""
        return _ALIASES[self.wire_api]

    def key(self, environ: Mapping[str, str]) -> str | None:
        """The key to ask with; None asks without.

        Raises:
            SettingsError: No header can carry it.
        """
        key = environ.get(self.api_key_env) if self.api_key_env else None
        if self.api_key is not None:
            key = self.api_key.reveal()
        try:
            return None if key is None else as_header(key)
        except SettingsError as error:
            raise SettingsError(f"endpoints: {self.name!r}: {error}") from error


class AcpSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole file.

    Args:
        default_endpoint: Its name; absent, the first.
        system_prompt_path: Replaces the agent's own instructions.
        max_rounds: Calls of the model in one turn.
        command_timeout_secs: For a command that does not name its own.
    """

    default_endpoint: str | None = None
    system_prompt_path: Path | None = None
    endpoints: tuple[Endpoint, ...] = ()
    max_rounds: Annotated[int, msgspec.Meta(ge=1)] = 50
    command_timeout_secs: Annotated[float, msgspec.Meta(gt=0)] = 120


def default_path(environ: Mapping[str, str]) -> Path:
    """``$XDG_CONFIG_HOME/helexa-acp/config.toml``."""
    return user_folder("XDG_CONFIG_HOME", ".config", environ) / "helexa-acp" / "config.toml"


def load_settings(path: Path | None, environ: Mapping[str, str]) -> Loaded[AcpSettings]:
    """Read and check.

    Raises:
        SettingsError: With the key and a way out.
    """
    named = path or (Path(environ[f"{PREFIX}CONFIG_PATH"])
                     if environ.get(f"{PREFIX}CONFIG_PATH") else None)  # fmt: skip
    loaded = load(
        AcpSettings,
        prefix=PREFIX,
        path=named,
        default_path=default_path(environ),
        flags={},
        environ=environ,
        reserved=frozenset(f"{PREFIX}{name}" for name in _OWN),
    )
    settings = _with_environment(loaded.value, environ)
    _check(settings, environ)
    return Loaded(settings, loaded.warnings, loaded.path)


def _with_environment(settings: AcpSettings, environ: Mapping[str, str]) -> AcpSettings:
    """The short names make an endpoint of their own, or change the default one."""
    given = {name: environ[f"{PREFIX}{name}"] for name in _OWN if environ.get(f"{PREFIX}{name}")}
    changes: dict[str, Any] = {
        "default_model": given.get("MODEL"),
        "api_key": Secret(given["API_KEY"]) if "API_KEY" in given else None,
        "max_tokens": _number(given, "MAX_TOKENS"),
        "context_window": _number(given, "CONTEXT_WINDOW"),
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    if "SYSTEM_PROMPT_PATH" in given:
        path = Path(given["SYSTEM_PROMPT_PATH"]).expanduser()
        settings = msgspec.structs.replace(settings, system_prompt_path=path)
    if "BASE_URL" not in given and settings.endpoints:
        endpoints = tuple(
            msgspec.structs.replace(endpoint, **changes) if is_default else endpoint
            for endpoint, is_default in _with_default(settings)
        )
        return msgspec.structs.replace(settings, endpoints=endpoints)
    name = "environment" if "BASE_URL" in given else "local"
    first = Endpoint(name, given.get("BASE_URL", LOCAL), **changes)
    return msgspec.structs.replace(
        settings, endpoints=(first, *settings.endpoints), default_endpoint=name
    )


def _with_default(settings: AcpSettings) -> Iterator[tuple[Endpoint, bool]]:
    """Every endpoint, and whether it is the default one."""
    named = settings.default_endpoint or settings.endpoints[0].name
    return ((endpoint, endpoint.name == named) for endpoint in settings.endpoints)


def _number(given: Mapping[str, str], name: str) -> int | None:
    if name not in given:
        return None
    if not given[name].isdigit() or int(given[name]) < 1:
        raise SettingsError(f"{PREFIX}{name}: {given[name]!r} is not a number of tokens")
    return int(given[name])


def _check(settings: AcpSettings, environ: Mapping[str, str]) -> None:
    if settings.system_prompt_path is not None:
        _check_text(settings.system_prompt_path)
    names = [endpoint.name for endpoint in settings.endpoints]
    for name in names:
        if names.count(name) > 1:
            raise SettingsError(f"endpoints: the name {name!r} is given twice; names must differ")
        if ":" in name or not name:
            raise SettingsError(f"endpoints: {name!r} cannot be a name; it goes before a colon")
    if settings.default_endpoint is not None and settings.default_endpoint not in names:
        raise SettingsError(
            f"default_endpoint: there is no endpoint {settings.default_endpoint!r}; "
            f"one of {', '.join(names)}"
        )
    for endpoint in settings.endpoints:
        try:
            parse_url(endpoint.base_url)
        except ValueError as error:
            raise SettingsError(
                f"endpoints: {endpoint.name!r}: {endpoint.base_url!r} is not an http:// address: "
                f"{error}"
            ) from error
        endpoint.key(environ)


def _check_text(path: Path) -> None:
    try:
        path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SettingsError(f"system_prompt_path: {path} cannot be read: {why}") from error
