"""A certificate that cannot be used is refused in words that say which file is wrong, and how."""

from __future__ import annotations

import subprocess
from pathlib import Path

import msgspec
import pytest

from helexa.core.settings import SettingsError
from helexa.cortex.build.tls import server_tls
from helexa.cortex.settings import CortexSettings, GatewaySettings


def openssl(*words: str) -> None:
    subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=60)


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate with its key, another key, and the first one encrypted."""
    folder = tmp_path_factory.mktemp("pems")
    ec = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
    for name in ("mine", "other"):
        out = ("-keyout", f"{folder}/{name}.key", "-out", f"{folder}/{name}.crt")
        openssl("req", "-x509", *ec, "-nodes", *out, "-days", "2", "-subj", "/CN=localhost")
    locked = ("-out", f"{folder}/locked.key", "-aes256", "-passout", "pass:secret")
    openssl("pkey", "-in", f"{folder}/mine.key", *locked)
    (folder / "notes.txt").write_text("nothing of the kind\n")
    return folder


def served_with(pems: Path, cert: str, key: str) -> CortexSettings:
    gateway = GatewaySettings(tls_cert=pems / cert, tls_key=pems / key)
    return msgspec.structs.replace(CortexSettings(), gateway=gateway)


def test_a_pair_that_belongs_together_is_taken(pems: Path) -> None:
    assert server_tls(served_with(pems, "mine.crt", "mine.key")) is not None


@pytest.mark.parametrize(
    ("cert", "key", "words"),
    [
        ("mine.key", "mine.crt", "the two are swapped"),
        ("notes.txt", "mine.key", "notes.txt holds no certificate"),
        ("mine.crt", "notes.txt", "notes.txt holds no private key"),
        ("mine.crt", "other.key", "is not the key of the certificate"),
        ("mine.crt", "locked.key", "is encrypted"),
        ("gone.crt", "mine.key", "gone.crt cannot be read: No such file"),
        ("mine.crt", "gone.key", "gone.key cannot be read: No such file"),
    ],
)
def test_a_pair_that_cannot_be_used_is_refused_with_what_is_wrong(
    pems: Path, cert: str, key: str, words: str
) -> None:
    with pytest.raises(
        SettingsError, match=r"^gateway\.tls_cert and gateway\.tls_key: "
    ) as refused:
        server_tls(served_with(pems, cert, key))
    assert words in str(refused.value)
    assert "_ssl.c" not in str(refused.value)
