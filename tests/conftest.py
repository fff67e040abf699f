"""Fixtures that every room uses."""

from __future__ import annotations

import gc
import logging
import os
import socket
import ssl
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.postgres import Server as PostgresServer


# Where bytecode is not to be written, as in many containers, each of the hundreds of processes that
# tests start would compile our source anew: a third of what they cost.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# An example that takes long says how crowded the machine is, and nothing about the code.
settings.register_profile(
    "crowded", settings.default, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("crowded")


def pytest_configure(config: pytest.Config) -> None:
    """Have clients look for the certificate of an authority when one is needed: to read all of them
    from one file takes a new client 30 ms, and the suite makes thousands, who ask loopback."""
    if "not sdks" in config.option.markexpr:  # those ask the world, as it is set up here
        os.environ.pop("SSL_CERT_FILE", None)
        os.environ.setdefault("SSL_CERT_DIR", ssl.get_default_verify_paths().openssl_capath)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where tests are given out by file, see ``tests.files``."""
    if config.getvalue("dist") != "loadfile":
        return None
    from tests.files import ByFile

    return ByFile(config, log)


@pytest.fixture(scope="session", autouse=True)
def sockets_left_open() -> Iterator[None]:
    """None is, once everything that tests share has ended: what a module refers to, no other
    check finds before the interpreter is gone."""
    yield
    library = sys.modules.get("huggingface_hub.utils")
    if library is not None:
        library.close_session()  # it keeps one for the whole process
    gc.collect()
    found = [one for one in gc.get_objects() if issubclass(type(one), socket.socket)]
    left = [one for one in found if one.fileno() >= 0]
    # With PYTHONTRACEMALLOC=25 it is known where they were opened.
    assert not left, [tracemalloc.get_object_traceback(one) for one in left]


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, object]]:
    """Tests marked ``anyio`` run on the loop that production runs on."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture
def own_logging() -> Iterator[None]:
    """Python's logging is led back to where it was after a test that configures ours."""
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)
    logging.captureWarnings(capture=False)


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model of random weights per kind, each in a folder of its own.

    ``vision`` (with its image encoder), ``embedder``, ``reranker``.
    """
    pytest.importorskip("gguf")
    script = Path(__file__).parents[1] / "scripts/tiny_models.py"
    folder = tmp_path_factory.mktemp("tiny")
    kinds = ("vision", "embedder", "reranker")
    words = [word for kind in kinds for word in ("--shape", kind)]
    subprocess.run([sys.executable, str(script), *words, "--out", str(folder)], check=True)
    return folder


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server for all tests that want one."""
    from tests import postgres

    if postgres.binaries() is None:
        pytest.skip("PostgreSQL's server is not installed (Debian: apt-get install postgresql)")
    with postgres.server(postgres.in_memory()) as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """A fresh database in it."""
    url = postgres_server.database()
    yield url
    postgres_server.drop(url)
