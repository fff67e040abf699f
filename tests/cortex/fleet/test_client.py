"""A node's management routes over real sockets, with and without TLS."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from helexa.core.errors import UpstreamConnectionError, UpstreamTimeout
from helexa.core.settings import SettingsError
from helexa.cortex.fleet.client import HttpNode, Trust, tls_of
from helexa.cortex.settings import NeuronSettings

pytestmark = pytest.mark.anyio

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost"),
            *("-keyout", str(key), "-out", str(cert)),
        ],
        check=True,
        capture_output=True,
    )
    return cert, key


@asynccontextmanager
async def server(answer: bytes, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
            if not answer:
                await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(handle, "localhost", 0, ssl=context)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


async def test_a_node_behind_tls_is_trusted_by_its_own_authority_only(
    certificate: tuple[Path, Path],
) -> None:
    cert, key = certificate
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(cert, key)
    async with server(ANSWER, context) as port:
        url = f"https://localhost:{port}/"
        trusted = HttpNode(url, Trust("gw", "s"), tls_of(NeuronSettings("n", url, cert)))
        assert await trusted.get("/health", 5) == (200, b"{}")
        stranger = HttpNode(url, Trust("gw", "s"), tls_of(NeuronSettings("n", url)))
        with pytest.raises(UpstreamConnectionError):
            await stranger.get("/health", 5)
    with pytest.raises(SettingsError, match="/nowhere"):
        tls_of(NeuronSettings("n", "https://n", Path("/nowhere")))


async def test_silence_and_garbage_become_errors_of_ours() -> None:
    async with server(b"") as port:
        node = HttpNode(f"http://localhost:{port}", Trust("gw"))
        with pytest.raises(UpstreamTimeout):
            await node.get("/health", 0.05)
    async with server(b"not http\r\n\r\n") as port:
        node = HttpNode(f"http://localhost:{port}", Trust("gw"))
        with pytest.raises(UpstreamConnectionError):
            await node.get("/health", 5)
        with pytest.raises(UpstreamConnectionError):
            async with node.events(None, 1.0) as stream:
                assert stream.status == 0
