"""Whether an optional part is installed, and what to type when it is not."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable

import click

ENGINES = ("xllamacpp", "vllm")


def has_engine() -> bool:
    """Whether one is installed beside us."""
    return any(importlib.util.find_spec(name) for name in ENGINES)


def need_engine(command: str, *, elsewhere: Callable[[], bool] = lambda: False) -> None:
    """Leave with status 3 and the command to type when there is no engine.

    Args:
        elsewhere: Whether there is one that is not installed beside us.
    """
    if not has_engine() and not elsewhere():
        click.echo(
            f"helexa {command}: no engine is installed; run: pip install 'helexa[neuron]'", err=True
        )
        raise SystemExit(3)
