"""The ``helexa`` command: a table of subcommands, each imported when it is asked for."""

from __future__ import annotations

import importlib

import click

from helexa.cli.options import version_option

COMMANDS: dict[str, tuple[str, str]] = {
    "up": ("helexa.cli.up:up_command", "Gateway, node and built-in model on this machine."),
    "cortex": ("helexa.cli.cortex:serve_command", "Serve the gateway."),
    "neuron": ("helexa.cli.neuron:neuron_command", "Serve the node of this host."),
    "ask": ("helexa.cli.ask:ask_command", "Ask a model, once or in a conversation."),
    "status": ("helexa.cli.status:status_command", "What a running gateway can serve."),
    "fleet": ("helexa.cli.fleet:fleet_group", "See and change what is loaded where."),
    "keys": ("helexa.cli.keys:keys_group", "Make, find, change, rotate and revoke keys."),
    "simulate": ("helexa.cli.simulate:simulate_command", "Replay a trace on simulated nodes."),
    "ledger": ("helexa.cli.ledger:ledger_group", "Verify that the ledger adds up."),
    "bench": ("helexa.cli.bench:bench_group", "Measure every build, and show what changed."),
    "client-config": (
        "helexa.cli.client_config:client_config_command",
        "Print a ready configuration for a client.",
    ),
    "usage": ("helexa.cli.usage:usage_command", "Tokens and costs by key, account, model, day."),
    "acp": ("helexa.cli.acp:acp_command", "The fleet as a coding agent in your editor."),
    "doctor": ("helexa.cli.doctor:doctor_command", "What this host has, and what to fix."),
}


class LazyGroup(click.Group):
    """A group whose help is a table, so that listing commands imports none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As ``click.Group``'s, which would look for the nearest name among imported commands."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as unknown:
            name = unknown.command_name
            raise click.exceptions.NoSuchCommand(name, possibilities=COMMANDS, ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@version_option
def helexa() -> None:
    """One address for a fleet of machines that run language models.

    Start with `helexa up`, then point any OpenAI client at http://127.0.0.1:31313/v1.
    """
