"""``helexa cortex --check``: would a gateway start with these settings? Nothing is opened."""

from __future__ import annotations

from collections.abc import Mapping

from helexa.cortex.auth import settings_keys
from helexa.cortex.build.front import server_tls
from helexa.cortex.fleet.client import tls_of
from helexa.cortex.ledger.database import check_url
from helexa.cortex.ledger.opening import MEMORY
from helexa.cortex.profiles import ProfileFile, Profiles
from helexa.cortex.settings import DEFAULT_MODELS_PATH, CortexSettings


def check(settings: CortexSettings, environ: Mapping[str, str]) -> str:
    """What they set up, in words.

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
        (len(settings.neurons), "nodes"),
        (len(catalogue.models), "models"),
        (len(catalogue.aliases), "aliases"),
        (len(keys), "keys"),
    )
    return ", ".join(f"{count} {what}" for count, what in counts)
