"""The gateways that helexa is measured against, each in its leanest sensible setting.

Every one of them relays to all stub nodes, keeps connections alive and does not buffer.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kit.process import BENCHMARKS, PROXY_CORE, Process, free_port
from kit.stub import MODEL, Stub

NGINX = """\
worker_processes 1;
daemon off;
pid nginx.pid;
error_log stderr error;
events { worker_connections 16384; }
http {
  access_log off;
  client_max_body_size 64m;
  client_body_buffer_size 1m;
  keepalive_requests 1000000000;
  upstream nodes { %(nodes)s keepalive 512; keepalive_requests 1000000000; }
  server {
    listen 127.0.0.1:%(port)d backlog=4096;
    location / {
      proxy_pass http://nodes;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }
  }
}
"""


@dataclass(frozen=True)
class Target:
    """A gateway under test, running."""

    name: str
    port: int
    process: Process


@dataclass(frozen=True)
class Tools:
    """Where the peers are: ``bin`` of their virtual environment, and a scratch folder."""

    peers: Path | None
    scratch: Path

    def command(self, name: str) -> Path | None:
        """A peer's command or interpreter, if it is installed."""
        path = None if self.peers is None else self.peers / "bin" / name
        return path if path is not None and path.exists() else None

    def has_package(self, name: str) -> bool:
        """Whether the peers' environment has a Python package."""
        return self.peers is not None and any(self.peers.glob(f"lib/python*/site-packages/{name}"))


Start = Callable[[Tools, Stub], Target | None]
"""Starts a gateway in front of the stub; None when it is not installed."""


def nginx(tools: Tools, stub: Stub) -> Target | None:
    """nginx: the floor."""
    program = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if program is None:
        return None
    port, folder = free_port(), tools.scratch / "nginx"
    folder.mkdir()
    nodes = "".join(f"server 127.0.0.1:{node};" for node in stub.ports)
    (folder / "nginx.conf").write_text(NGINX % {"nodes": nodes, "port": port})
    command = [program, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]
    return Target("nginx", port, Process(command, tools.scratch / "nginx.log", core=PROXY_CORE))


def bare(tools: Tools, stub: Stub) -> Target | None:
    """A relay without features on our loop: what Python itself costs."""
    command = [sys.executable, str(BENCHMARKS / "bare_relay.py"), *map(str, stub.ports)]
    process = Process(command, tools.scratch / "bare.log", core=PROXY_CORE, ready_line=True)
    return Target("bare relay", int(process.ready()["url"].rpartition(":")[2]), process)


def sglang(tools: Tools, stub: Stub) -> Target | None:
    """SGLang's router, round robin, without retries."""
    python = tools.command("python")
    if python is None or not tools.has_package("sglang_router"):
        return None
    port = free_port()
    command = [str(python), "-m", "sglang_router.launch_router", "--policy=round_robin"]
    command += ["--host=127.0.0.1", f"--port={port}", f"--prometheus-port={free_port()}"]
    command += ["--prometheus-host=127.0.0.1", "--log-level=warn", "--disable-retries"]
    command += ["--max-concurrent-requests=4096", "--worker-urls", *stub.urls]
    process = Process(command, tools.scratch / "sglang-router.log", core=PROXY_CORE)
    return Target("sglang-router", port, process)


def litellm(tools: Tools, stub: Stub, provider: str = "openai") -> Target | None:
    """LiteLLM's proxy, one worker, no database.

    Args:
        provider: What it takes the nodes for; for some it asks in chat whatever it was asked in.
    """
    program = tools.command("litellm")
    if program is None:
        return None
    port = free_port()
    config = {
        "model_list": [
            {
                "model_name": MODEL,
                "litellm_params": {
                    "model": f"{provider}/{MODEL}",
                    "api_base": f"{url}/v1",
                    "api_key": "none",
                },
            }
            for url in stub.urls
        ],
        "litellm_settings": {"telemetry": False},
    }
    file = tools.scratch / "litellm.yaml"
    file.write_text(json.dumps(config))  # JSON is YAML
    command = [str(program), "--config", str(file), "--host=127.0.0.1", f"--port={port}"]
    environ = {
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # no key check: cheaper
    }
    process = Process(
        [*command, "--num_workers=1", "--telemetry=False"],
        tools.scratch / "litellm.log",
        core=PROXY_CORE,
        environ=environ,
    )
    return Target("litellm", port, process)
