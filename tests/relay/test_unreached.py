"""Who cannot be reached, and why: the name, the port, the way, or TLS, each with its remedy."""

from __future__ import annotations

import asyncio
import errno
import shutil
import socket
import ssl
from pathlib import Path

import pytest
from tests.relay.rig import HOST, Echo, serving
from tests.relay.test_tls import certify

from helexa.core.errors import UpstreamFailed
from helexa.relay.client import KeptClient, parse_url, request_json, stream
from helexa.relay.listener import Tls
from helexa.relay.pool import UpstreamPool
from helexa.relay.unreached import silent, unreached
from helexa.relay.wheel import Wheel

pytestmark = pytest.mark.anyio

WORDS: dict[str, tuple[OSError | UnicodeError, str, str]] = {
    "name": (socket.gaierror(-2, "Name or service not known"), "its name is not known",
             "the name 'gpu' cannot be looked up (Name or service not known): check its spelling"),
    "no name": (UnicodeError("label too long"), "its name is not known", "it is not a host name"),
    "port": (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"),
             "nothing listens at its port", "nothing listens at gpu:13131 (connection refused)"),
    "every address": (OSError("Multiple exceptions: [Errno 111] Connect call failed ('::1', 1), "
                              "[Errno 111] Connect call failed ('127.0.0.1', 1)"),
                      "nothing listens at its port", "is it running"),
    "way": (OSError(errno.EHOSTUNREACH, "No route to host"), "no route to it",
            "no route to gpu:13131 (No route to host)"),
    "silence": (OSError(errno.ETIMEDOUT, "Connection timed out"), "no connection in time",
                "does every firewall let the port through"),
    "no TLS": (ssl.SSLError(1, "[SSL: WRONG_VERSION_NUMBER] wrong version number"),
               "no TLS with it", "is its address to begin with http://?"),
    "else": (OSError(errno.EMFILE, "Too many open files"), "could not connect",
             "could not connect to gpu:13131: Too many open files"),
}  # fmt: skip


@pytest.mark.parametrize("name", WORDS)
def test_each_obstacle_is_named_with_what_to_look_at(name: str) -> None:
    error, short, part = WORDS[name]
    why = unreached(error, "gpu", 13131)
    assert why.short == short
    assert part in why.whole
    assert "gpu" not in why.short  # the short words may be told to anybody


def test_silence_names_the_time_and_the_firewall() -> None:
    assert silent("::1", 13131, 3.0).whole.startswith("no connection to [::1]:13131 within 3 s")


async def said_by(way: str, url: str) -> UpstreamFailed:
    """What each of the ways to ask says of an address that nobody answers at."""
    loop = asyncio.get_running_loop()
    origin, _ = parse_url(url)
    wheel = Wheel(loop)
    tls = ssl.create_default_context() if origin.tls else None
    pool = UpstreamPool(origin, wheel, loop, tls=tls)
    with pytest.raises(UpstreamFailed) as failed:
        if way == "kept":
            await KeptClient(pool, wheel, loop).call("GET", url, None, {}, 30.0)
        elif way == "stream":
            async for _ in stream(url, connect_timeout=30.0):
                pass
        else:
            await request_json("GET", url, timeout=30.0)
    return failed.value


WAYS = ("kept", "stream", "once")


@pytest.mark.parametrize("way", WAYS)
async def test_every_way_to_ask_tells_the_port_from_the_name(way: str) -> None:
    with socket.socket() as bound:  # taken, and nobody listens at it
        bound.bind((HOST, 0))
        port = bound.getsockname()[1]
        refused = await said_by(way, f"http://{HOST}:{port}/health")
    assert f"nothing listens at {HOST}:{port}" in refused.message
    unnamed = await said_by(way, f"http://{'a' * 70}.example:{port}/health")
    assert "it is not a host name" in unnamed.message
    assert "DNS" in unnamed.message


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
@pytest.mark.parametrize("way", WAYS)
async def test_every_way_to_ask_tells_a_certificate_from_no_tls(way: str, tmp_path: Path) -> None:
    cert, key = certify(tmp_path, 1)
    async with serving(Echo(), tls=Tls(cert, key)) as listener:
        distrusted = await said_by(way, f"https://{HOST}:{listener.port}/echo")
    assert f"the certificate of {HOST}:{listener.port} is not trusted: self" in distrusted.message
    assert "`ca`" in distrusted.message
    async with serving(Echo()) as listener:
        plain = await said_by(way, f"https://{HOST}:{listener.port}/echo")
    assert f"no TLS with {HOST}:{listener.port}" in plain.message
    assert "http://" in plain.message
