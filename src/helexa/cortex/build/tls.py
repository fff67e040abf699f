"""What the API's TLS is served with, and words for a certificate that cannot be used."""

from __future__ import annotations

from pathlib import Path

from helexa.core.settings import SettingsError
from helexa.cortex.settings import CortexSettings
from helexa.relay.listener import Tls

_CERTIFICATE = "-----BEGIN CERTIFICATE-----"
_KEY = "PRIVATE KEY-----"


def server_tls(settings: CortexSettings) -> Tls | None:
    """What the API is served with; None without TLS.

    Raises:
        SettingsError: The files cannot be used.
    """
    cert, key = settings.gateway.tls_cert, settings.gateway.tls_key
    if cert is None or key is None:
        return None
    try:
        return Tls(cert, key)
    except OSError as error:  # also what ssl raises for a file that holds neither
        why = _why_not(cert, key) or f"{cert} with {key} cannot be used: {error}"
        raise SettingsError(f"gateway.tls_cert and gateway.tls_key: {why}") from error


def _why_not(cert: Path, key: Path) -> str | None:
    """What is wrong with the two files, for OpenSSL only names a line of its own source."""
    try:
        certificate, secret = (path.read_text(errors="replace") for path in (cert, key))
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    if _CERTIFICATE not in certificate:
        swapped = _KEY in certificate and _CERTIFICATE in secret
        hint = "; the two are swapped" if swapped else ""
        return f"{cert} holds no certificate in PEM{hint}"
    if _KEY not in secret:
        return f"{key} holds no private key in PEM"
    if "ENCRYPTED" in secret:
        return f"{key} is encrypted; write it without its passphrase: openssl pkey -in FILE"
    return f"{key} is not the key of the certificate in {cert}, or one of them is damaged"
