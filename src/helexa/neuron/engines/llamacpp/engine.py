"""The ``llamacpp`` engine behind the protocol of ``base.py``."""

from __future__ import annotations

import json
import math
import secrets
import sys
import time
from collections.abc import Callable, Mapping

import msgspec

from helexa.core.errors import (
    HelexaError,
    ModelLoading,
    ServiceUnavailable,
    UpstreamTimeout,
)
from helexa.neuron.engines.base import (
    Address,
    EngineRequest,
    Host,
    Launch,
    LoadFigures,
    Plan,
    Served,
    Verdict,
)
from helexa.neuron.engines.environ import engine_environ
from helexa.neuron.engines.http import Answer, ask
from helexa.neuron.engines.llamacpp import clean, counting
from helexa.neuron.engines.llamacpp.build import LlamaCppBuild, installed_version
from helexa.neuron.engines.llamacpp.config import ServerConfig
from helexa.neuron.engines.llamacpp.errors import map_error
from helexa.neuron.engines.llamacpp.planning import SPIN, make_plan
from helexa.neuron.models.facts import ModelFacts
from helexa.wire.bodies import UNREADABLE

_CHILD = "helexa.neuron.engines.llamacpp.child"
_CUDA_WHEELS = "https://xorbitsai.github.io/xllamacpp/whl/cu128"
_PROBE_TIMEOUT_S = 60.0
_PROBES: tuple[tuple[str, dict[str, object]], ...] = (
    (
        "/completion",
        {
            "prompt": "Hello",
            "n_predict": 1,
            "n_probs": 1,
            "temperature": 0.0,
            "cache_prompt": False,
        },
    ),
    ("/v1/rerank", {"query": "Hello", "documents": ["Hello"]}),
    ("/v1/embeddings", {"input": "Hello"}),
)
"""A question per kind of model; a server refuses those that are not for its own."""
_RENDER_PATH = "/apply-template"


class _Slot(msgspec.Struct):
    """What one of the server's slots says of itself."""

    is_processing: bool = False
    n_prompt_tokens: int = 0  # output included


def new_key() -> str:
    """A key that only the node and its engine know."""
    return secrets.token_urlsafe(24)


class LlamaCpp:
    """Runs GGUF files.

    Args:
        environ: What engine processes inherit, less our settings and secrets.
        build: What the installed wheel can use; see ``inspect_build``.
        cpu_only: The operator asked for the CPU (``gpu_layers = 0``): then a GPU the wheel
            cannot use is no obstacle.
        key_source: Makes API keys.
        clock: Unix time, for ``created``.
    """

    name = "llamacpp"
    grammars = True

    def __init__(
        self,
        environ: Mapping[str, str],
        build: LlamaCppBuild | None = None,
        *,
        cpu_only: bool = False,
        key_source: Callable[[], str] = new_key,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._environ = environ
        self._build = build or LlamaCppBuild()
        self._cpu_only = cpu_only
        self._new_key = key_source
        self._clock = clock

    def version(self) -> str | None:
        """Installed version, or None."""
        return installed_version()

    def can_run(self, facts: ModelFacts, host: Host) -> Verdict:
        """GGUF files, on the CPU or on GPUs that the installed wheel was built for."""
        if facts.format != "gguf":
            return Verdict(False, "unsupported_format", f"llama.cpp runs GGUF, not {facts.format}")
        if self.version() is None:
            return Verdict(False, "engine_not_installed", "run: pip install 'helexa[neuron]'")
        if host.fault is not None and not self._cpu_only:
            return Verdict(False, "engine_without_gpu", host.fault)
        gpus = [device for device in host.devices if device.kind != "cpu"]
        if gpus and not self._build.gpu and not self._cpu_only:
            return Verdict(
                False,
                "engine_without_gpu",
                f"the installed xllamacpp {self.version()} is built for the CPU only, this host "
                f"has {gpus[0].name or gpus[0].kind}; run: pip install --force-reinstall xllamacpp "
                f"--index-url {_CUDA_WHEELS} (or set gpu_layers = 0 in [engines.llamacpp])",
            )
        return Verdict(True)

    def plan(self, facts: ModelFacts, host: Host, wanted: Mapping[str, object]) -> Plan:
        """See ``planning.make_plan``."""
        return make_plan(facts, host, wanted)

    def launch(self, facts: ModelFacts, plan: Plan, model_id: str) -> Launch:
        """A child process with a fresh key; everything it needs goes through its stdin."""
        key = self._new_key()
        uds = f"helexa-{self._new_key()}" if sys.platform == "linux" else None
        config = server_config(facts, plan, model_id, key, uds)
        return Launch(
            argv=(sys.executable, "-m", _CHILD, "--engine", self.name, "--model", model_id),
            env=engine_environ(self._environ, **_engine_env(plan)),
            secret=msgspec.json.encode(config),
            api_key=key,
        )

    async def ready(self, address: Address, model_id: str) -> None:
        """One token (or vector, or score) must be finite.

        Raises:
            ServiceUnavailable: NaN or garbage.
        """
        answer = await ask(address, "GET", "/props", timeout_s=_PROBE_TIMEOUT_S)
        if answer.status == 503:
            raise ModelLoading("The engine is still loading.")
        await _sane(address, model_id)

    def clean(
        self,
        route: str,
        body: bytes,
        served: Served,
        request_id: str,
        *,
        thinking: bool = False,
        plain: bool = False,
    ) -> EngineRequest:
        """See ``clean.engine_request``."""
        return clean.engine_request(
            route,
            body,
            served,
            request_id,
            created=int(self._clock()),
            thinking=thinking,
            grammars=self.grammars,
            plain=plain,
        )

    async def count(
        self, address: Address, body: bytes, served: Served, *, thinking: bool = False
    ) -> int:
        """Exact prompt tokens, by the engine's own template and tokenizer."""
        request = self.clean("chat", body, served, "count", thinking=thinking)
        return await self.count_cleaned(address, request, served)

    async def count_cleaned(self, address: Address, asked: EngineRequest, served: Served) -> int:
        """Exact prompt tokens of what will be sent, thinking switch and repairs included."""
        return await counting.count(address, asked, served)

    async def render(self, address: Address, body: bytes, served: Served) -> str:
        """The rendered prompt, from llama.cpp's own ``/apply-template``."""
        asked = self.clean("chat", body, served, "render")
        answer = await ask(address, "POST", _RENDER_PATH, asked.body)
        if answer.status != 200:
            raise self.error(answer.status, answer.body, served)
        return str(answer.json()["prompt"])

    async def load(self, address: Address) -> LoadFigures:
        """From the slots: running requests and the cells they hold."""
        answer = await ask(address, "GET", "/slots")
        try:
            slots = msgspec.json.decode(answer.body, type=list[_Slot])
        except UNREADABLE:
            raise UpstreamTimeout("The engine does not say what its slots do.") from None
        running = [slot for slot in slots if slot.is_processing]
        used = sum(slot.n_prompt_tokens for slot in running)
        return LoadFigures(kv_used=used, running=len(running))

    def error(self, status: int, body: bytes, served: Served) -> HelexaError:
        """See ``errors.map_error``."""
        return map_error(status, body, served)


def server_config(
    facts: ModelFacts, plan: Plan, model_id: str, key: str, uds: str | None = None
) -> ServerConfig:
    """Every field of the plan as a setting of the server.

    Args:
        uds: Where to listen; a token costs a third less to receive than over the loopback.
    """
    extra = plan.extra
    return ServerConfig(
        path=str(facts.path),
        alias=model_id,
        api_key=key,
        cells=plan.kv_cells + plan.ahead_cells * plan.slots,
        slots=plan.slots,
        uds=uds,
        unified=plan.unified,
        kv_type=plan.kv_type,
        threads=plan.threads,
        threads_batch=int(str(extra.get("threads_batch", plan.threads))),
        threads_http=4 * plan.slots + 16,  # more than the node ever opens
        poll=int(str(extra.get("poll", 0))),
        prefill_batch=plan.batch,
        cache_ram_mb=plan.cache_ram_mb,
        gpu_layers=plan.gpu_layers,
        main_gpu=int(str(extra.get("main_gpu", 0))),
        split_mode=str(extra.get("split_mode", "layer")),
        tensor_split=plan.tensor_split,
        flash_attention=str(extra.get("flash_attention", "auto")),
        embeddings=plan.embeddings,
        pooling=_pooling(facts, plan),
        rerank=plan.rerank,
        mmproj=str(facts.projector) if facts.projector else None,
        image_max_tokens=int(str(extra.get("image_max_tokens", 0))),
        mlock=bool(extra.get("mlock", False)),
    )


def _pooling(facts: ModelFacts, plan: Plan) -> str | None:
    if not plan.embeddings:
        return None
    return facts.pooling if facts.pooling not in (None, "none", "rank") else "mean"


def _engine_env(plan: Plan) -> dict[str, str]:
    """Devices by their place on the bus, as the driver's own tools count them; and OpenMP, whose
    threads wait for each other by spinning unless told otherwise (``benchmarks/``)."""
    return {
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": ",".join(str(index) for index in plan.devices),
        "GOMP_SPINCOUNT": str(plan.extra.get("spin", SPIN)),
        "OMP_NUM_THREADS": str(plan.threads),
    }


async def _sane(address: Address, model_id: str) -> None:
    """Ask for one token, or for a score or a vector where the model gives no tokens."""
    answer = Answer(0, b"")
    for path, body in _PROBES:
        answer = await ask(address, "POST", path, body, timeout_s=_PROBE_TIMEOUT_S)
        if not _not_for_this(answer):
            break
    if answer.status != 200:
        text = answer.body[:200].decode("utf-8", "replace")
        raise ServiceUnavailable(f"{model_id} loaded but gave no token: {text}")
    if not _finite(answer.body):
        raise ServiceUnavailable(
            f"{model_id} loaded but its first token is not a number (NaN): the file is damaged, "
            "or this quantisation does not work on this hardware"
        )


def _not_for_this(answer: Answer) -> bool:
    """The model does something else: it was loaded to rank or to embed, or is an encoder."""
    return answer.status == 501 or b"does not support logits" in answer.body


def _finite(body: bytes) -> bool:
    """Whether every probability, score or component of a sanity answer is a finite number."""
    try:
        answer = json.loads(body)
        if "completion_probabilities" in answer:
            return all(_number(token["logprob"]) for token in answer["completion_probabilities"])
        if "results" in answer:
            return all(_number(result["relevance_score"]) for result in answer["results"])
        return all(_number(x) for row in answer["data"] for x in row["embedding"])
    except (ValueError, KeyError, TypeError):
        return False


def _number(value: object) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value) and abs(value) < 1e30
