"""The simulated fleet: what nodes and models there are, from a TOML file or the defaults."""

from __future__ import annotations

from pathlib import Path

import msgspec

from helexa.core.settings import SettingsError
from helexa.cortex.residency.world import Rules


class NodeSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nodes that are alike.

    Args:
        count: How many of them.
        prefill, decode: Tokens per second; prefill one prompt after the other, decode per stream.
        kv_tokens: Tokens of running and remembered prompts that fit, per loaded model.
        seats: Requests that run at once, per loaded model.
        memory_mb: For models.
        loaded: What is there from the start.
    """

    name: str = "node"
    count: int = 1
    prefill: float = 10_000.0
    decode: float = 50.0
    kv_tokens: int = 154_000
    seats: int = 256
    memory_mb: int = 80_000
    loaded: tuple[str, ...] = ()


class ModelSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model: how large it is, how long its load takes, who it may displace."""

    id: str
    memory_mb: int = 16_000
    load_s: float = 20.0
    priority: int = 100


class FleetSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``[[nodes]]``, ``[[models]]`` and ``[residency]`` of a fleet file."""

    nodes: tuple[NodeSpec, ...] = (NodeSpec(count=8, loaded=("model",)),)
    models: tuple[ModelSpec, ...] = (ModelSpec("model"),)
    residency: Rules = Rules()

    def each(self) -> list[NodeSpec]:
        """Every node by itself."""
        return [
            msgspec.structs.replace(spec, name=f"{spec.name}-{at}" if spec.count > 1 else spec.name)
            for spec in self.nodes
            for at in range(spec.count)
        ]


def read(path: Path) -> FleetSpec:
    """A fleet file.

    Raises:
        SettingsError: It is not there, does not parse, or contradicts itself.
    """
    try:
        spec = msgspec.toml.decode(path.read_bytes(), type=FleetSpec)
    except (OSError, msgspec.DecodeError) as error:
        raise SettingsError(f"{path}: {error}") from error
    known, names = {model.id for model in spec.models}, [node.name for node in spec.each()]
    if len(names) != len(set(names)):
        raise SettingsError(f"{path}: two nodes have one name; give each [[nodes]] its own")
    for node in spec.nodes:
        if strange := set(node.loaded) - known:
            raise SettingsError(f"{path}: {node.name}: no [[models]] entry for {sorted(strange)}")
    return spec
