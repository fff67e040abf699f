"""Whether an optional part is installed, and what to type when it is not."""

from __future__ import annotations

import importlib.util

import click

ENGINES = ("xllamacpp", "vllm")


def need_engine(command: str) -> None:
    """Leave with status 3 and the command to type when no engine is installed."""
    if not any(importlib.util.find_spec(name) for name in ENGINES):
        click.echo(
            f"helexa {command}: no engine is installed; run: pip install 'helexa[neuron]'", err=True
        )
        raise SystemExit(3)
