"""Encryption, driven by other people's clients: curl and openssl."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path

import pytest
from tests.relay.rig import GET, Echo, client, get, serving

from helexa.core.errors import UpstreamConnectionError
from helexa.relay.client import request_json
from helexa.relay.http1 import Limits
from helexa.relay.listener import Tls

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(
        not (shutil.which("curl") and shutil.which("openssl")), reason="needs curl and openssl"
    ),
]


def certify(folder: Path, serial: int) -> tuple[Path, Path]:
    """A self-signed pair for 127.0.0.1; replaces the one that is there."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
         "subjectAltName=IP:127.0.0.1", "-set_serial", str(serial),
         "-keyout", f"{key}.new", "-out", f"{cert}.new"],
        check=True, capture_output=True,
    )  # fmt: skip
    Path(f"{key}.new").replace(key)
    Path(f"{cert}.new").replace(cert)
    return cert, key


async def run(*command: str, stdin: bytes = b"") -> str:
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(60):
        out, _ = await process.communicate(stdin)
    return out.decode(errors="replace")


async def serial(port: int) -> str:
    shown = await run("openssl", "s_client", "-connect", f"127.0.0.1:{port}")
    pem = shown[shown.index("-----BEGIN") : shown.index("-----END")] + "-----END CERTIFICATE-----\n"
    return (await run("openssl", "x509", "-noout", "-serial", stdin=pem.encode())).strip()


async def test_curl_is_served_over_tls_and_reuses_its_connection(tmp_path: Path) -> None:
    cert, key = certify(tmp_path, 1)
    app = Echo()
    async with serving(app, tls=Tls(cert, key)) as listener:
        curl = ("curl", "-sS", "--cacert", str(cert))
        url = listener.url
        out = await run(*curl, "-w", "|%{num_connects}\n", f"{url}/echo", f"{url}/stream/2")
        assert out == "GET /echo||1\nfirst-0-1last|0\n"
        out = await run(*curl, "--http1.0", f"{listener.url}/stream/1")
        assert out == "first-0last"
        out = await run(*curl, "-d", "x" * 100_000, f"{listener.url}/echo")
        assert out == "POST /echo|" + "x" * 100_000
        # curl asks for h2 by ALPN and, in clear text, by Upgrade: both end in HTTP/1.1.
        assert "GET /echo|" in await run(*curl, "--http2", f"{listener.url}/echo")
        assert app.seen[0].secure
        assert (
            await request_json(
                "GET", f"{listener.url}/echo", tls=ssl.create_default_context(cafile=str(cert))
            )
        ).status == 200
        with pytest.raises(UpstreamConnectionError):
            await request_json("GET", f"{listener.url}/echo")


async def test_curl_waits_for_100_continue_and_for_a_refusal(tmp_path: Path) -> None:
    cert, key = certify(tmp_path, 1)
    body = tmp_path / "body"
    body.write_bytes(b"y" * 3_000_000)
    for tls in (None, Tls(cert, key)):
        async with serving(Echo(), Limits(body_bytes=5_000_000), tls) as listener:
            curl = ("curl", "-sS", "-v", "--cacert", str(cert), "-H", "Expect: 100-continue")
            out = await run(*curl, "--expect100-timeout", "9", "-o", "/dev/null",
                            "--data-binary", f"@{body}", f"{listener.url}/echo")  # fmt: skip
            assert "100 Continue" in out
            assert "200 OK" in out
            body.write_bytes(b"y" * 6_000_000)
            out = await run(*curl, "--expect100-timeout", "9", "-w", "%{size_upload}",
                            "--data-binary", f"@{body}", f"{listener.url}/echo")  # fmt: skip
            assert "413" in out
            assert "100 Continue" not in out
            assert out.endswith("0")
            # Without Expect the refusal still arrives, not a reset.
            plain = ("curl", "-sS", "--cacert", str(cert), "-H", "Expect:", "-w", "%{http_code}")
            out = await run(*plain, "-H", "Transfer-Encoding: chunked",
                            "--data-binary", f"@{body}", f"{listener.url}/echo")  # fmt: skip
            assert out.endswith("413"), out
            body.write_bytes(b"y" * 3_000_000)


async def test_openssl_pipelines_over_tls(tmp_path: Path) -> None:
    cert, key = certify(tmp_path, 1)
    async with serving(Echo(), tls=Tls(cert, key)) as listener:
        requests = GET + GET + get("/stream/1") + get("/echo", "connection: close\r\n")
        connect = ("openssl", "s_client", "-quiet", "-ign_eof", "-connect")
        out = await run(*connect, f"127.0.0.1:{listener.port}", stdin=requests)
        assert out.count("HTTP/1.1 200 OK") == 4
        assert out.index("first") > out.index("GET /echo|")


async def test_a_renewed_certificate_is_served_without_a_restart(tmp_path: Path) -> None:
    cert, key = certify(tmp_path, 0x1111)
    tls = Tls(cert, key)
    async with serving(Echo(), tls=tls) as listener:
        assert await serial(listener.port) == "serial=1111"
        context = ssl.create_default_context(cafile=str(cert))
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.port, ssl=context)
        writer.write(GET)
        assert b"200 OK" in await reader.readuntil(b"GET /echo|")
        assert not tls.reload_if_changed()

        certify(tmp_path, 0x2222)
        assert tls.reload_if_changed()
        assert await serial(listener.port) == "serial=2222"
        writer.write(GET)  # the open connection keeps what it has
        assert b"200 OK" in await reader.readuntil(b"GET /echo|")
        writer.close()

        # A torn pair is not served.
        good = key.read_bytes()
        certify(tmp_path, 0x3333)
        key.write_bytes(good)
        with pytest.raises(ssl.SSLError):
            tls.reload_if_changed()
        assert await serial(listener.port) == "serial=2222"
        certify(tmp_path, 0x4444)
        assert tls.reload_if_changed()
        assert await serial(listener.port) == "serial=4444"


async def test_bytes_in_clear_on_the_tls_port_and_silent_handshakes_hold_nothing(
    tmp_path: Path,
) -> None:
    cert, key = certify(tmp_path, 1)
    async with serving(Echo(), Limits(head_secs=0.3), Tls(cert, key)) as listener:
        for data in (GET, b""):
            async with client(listener.port) as raw:
                raw.send(data)
                async with asyncio.timeout(30):
                    await raw.reader.read()
        assert not listener.connections.open
