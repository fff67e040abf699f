"""What the commands of ``helexa bench`` have in common: settings, the store, how they fail."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

import click

from helexa.cli.options import config_option

if TYPE_CHECKING:
    from helexa.bench.settings import BenchSettings
    from helexa.core.settings import Loaded

T = TypeVar("T")

config_file = config_option("/etc/helexa-bench/helexa-bench.toml")
database = click.option(
    "--db", type=click.Path(path_type=Path), help="The store; overrides bench.db_path."
)


def loaded_of(config: Path | None, db: Path | None, port: int | None) -> Loaded[BenchSettings]:
    """The settings file with what the command line says instead.

    Raises:
        SettingsError: It cannot be used.
    """
    import msgspec

    from helexa.bench.settings import load_settings
    from helexa.cli.serve import with_port
    from helexa.core.settings import Loaded

    loaded = load_settings(config, {"bench.db_path": None if db is None else str(db)}, os.environ)
    api = msgspec.structs.replace(loaded.value.api, listen=with_port(loaded.value.api.listen, port))
    return Loaded(msgspec.structs.replace(loaded.value, api=api), loaded.warnings, loaded.path)


def settings_of(config: Path | None, db: Path | None) -> BenchSettings:
    """The settings of a command; it ends where they cannot be used."""
    return guarded(lambda: loaded_of(config, db, None)).value


def guarded(work: Callable[[], T]) -> T:
    """Run ``work``; what is wrong with settings or store is one message and status 2."""
    from helexa.core.settings import SettingsError

    try:
        return work()
    except SettingsError as error:
        leave(2, str(error))
    except KeyboardInterrupt:
        raise SystemExit(130) from None


def leave(status: int, message: str) -> NoReturn:
    """End the command with a message."""
    click.echo(f"helexa bench: {message}", err=True)
    raise SystemExit(status)
