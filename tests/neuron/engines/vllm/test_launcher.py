"""What the launcher does to vLLM inside of vLLM's own interpreter."""

from __future__ import annotations

import subprocess

import pytest
from tests.neuron.engines.candidates import installed_vllm

from helexa.neuron.engines.vllm import engine

pytestmark = [pytest.mark.engines, pytest.mark.timeout(180)]

WORKERS = """
import os, runpy, sys, zmq
from vllm.distributed.device_communicators.shm_broadcast import SpinCondition

def spins_s():
    runpy.run_path(sys.argv[1], run_name="__mp_main__")
    return SpinCondition(True, zmq.Context.instance(), "inproc://nobody").busy_loop_s

own = spins_s()
os.environ["HELEXA_VLLM_SPIN_S"] = "0.25"
print(own, spins_s())
"""
"""How long a process that vLLM has spawned spins behind a message, untold and told (seconds)."""


def test_a_process_of_vllm_that_waits_sleeps_as_soon_as_it_is_told() -> None:
    build = installed_vllm()
    if build is None:
        pytest.skip("vLLM is not installed; run: make vllm-env")
    asked = [build.python, "-c", WORKERS, str(engine.LAUNCHER)]
    said = subprocess.run(asked, check=True, capture_output=True, text=True, timeout=150).stdout
    untold, told = map(float, said.splitlines()[-1].split())
    assert untold > told == 0.25
