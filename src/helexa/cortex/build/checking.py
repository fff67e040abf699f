"""``helexa cortex --check``: would a gateway start with these settings? Nothing is opened."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from helexa.core.secret_files import open_to_others
from helexa.core.settings_keys import nearest
from helexa.cortex.auth import settings_keys
from helexa.cortex.build.tls import server_tls
from helexa.cortex.fleet.client import tls_of
from helexa.cortex.ledger.database import check_url
from helexa.cortex.ledger.opening import MEMORY
from helexa.cortex.profiles import ProfileFile, Profiles
from helexa.cortex.settings import DEFAULT_MODELS_PATH, CortexSettings


def check(settings: CortexSettings, environ: Mapping[str, str]) -> tuple[str, list[str]]:
    """What they set up, in words, and what in them is hardly meant.

    Raises:
        SettingsError: What would stop a start: the settings, the catalogue, a secret, a
            certificate.
    """
    path = settings.models_config
    if path is None and DEFAULT_MODELS_PATH.exists():
        path = DEFAULT_MODELS_PATH
    catalogue = Profiles() if path is None else ProfileFile.open(path).current
    if settings.ledger.url not in (None, MEMORY):
        check_url(str(settings.ledger.url))
    keys = settings_keys(settings.entitlements, environ)
    settings.fleet.resolve(environ)
    server_tls(settings)
    for node in settings.neurons:
        tls_of(node)
    counts = (
        (len(settings.neurons), "node", "nodes"),
        (len(catalogue.models), "model", "models"),
        (len(catalogue.aliases), "alias", "aliases"),
        (len(keys), "key", "keys"),
    )
    found = ", ".join(f"{count} {one if count == 1 else more}" for count, one, more in counts)
    return found, [*_pins(catalogue, settings), *open_to_others(_secrets(settings))]


def _pins(catalogue: Profiles, settings: CortexSettings) -> Iterable[str]:
    """Models that are pinned on nodes which nobody has named; ``fleet add`` may do so later."""
    nodes = [node.name for node in settings.neurons]
    for model in catalogue.models:
        for name in model.pinned_on:
            if name not in nodes:
                close = nearest(name, nodes)
                hint = f"; did you mean {close!r}?" if close else ""
                where = f"pinned on {name!r}, which is not a node of cortex.toml"
                yield f"{model.id!r} is {where}{hint}"


def _secrets(settings: CortexSettings) -> dict[str, Path | None]:
    return {
        "fleet.secret_file": settings.fleet.secret_file,
        "gateway.tls_key": settings.gateway.tls_key,
    }
