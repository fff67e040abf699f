"""The command line. Subcommands are imported only when they run, so ``--help`` stays cheap.

stdout is data, stderr is log; exit status 2 is wrong usage or configuration, 3 could not start.
The functions here are the installed scripts.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import click


_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def hold_streams() -> None:
    """Open what a parent has closed: no socket of ours may become descriptor 1, which is data."""
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # it fills a hole
    os.close(spare)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def run(command: click.Command, name: str) -> None:
    """Run an installed script; settings that cannot be used are one message and status 2, output
    for which there is no room is one and status 1."""
    hold_streams()
    if os.environ.get("TERM") == "dumb":
        os.environ.setdefault("NO_COLOR", "1")  # one name for it: for the log, and for children
    plain = {"color": False} if os.environ.get("NO_COLOR") else {}  # see https://no-color.org
    try:
        command(prog_name=name, **plain)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            sys.stderr.write(f"{name}: what was to be written did not fit: {error.strerror}; free ")
            sys.stderr.write("some space and run it again\n")
            os._exit(1)  # what is left in the buffer of stdout would only be tried again
        from helexa.core.settings_keys import SettingsError

        if not isinstance(error, SettingsError):
            raise
        sys.stderr.write(f"{name}: {error}\n")
        raise SystemExit(2) from None


def main() -> None:
    """``helexa``: everything."""
    from helexa.cli.app import helexa

    run(helexa, "helexa")


def cortex() -> None:
    """``cortex``: the gateway's own script, with ``serve`` and ``status``."""
    from helexa.cli.cortex import cortex_script

    run(cortex_script, "cortex")


def neuron() -> None:
    """``neuron``: the same as ``helexa neuron``."""
    from helexa.cli.neuron import neuron_command

    run(neuron_command, "neuron")


def bench() -> None:
    """``helexa-bench``: the same as ``helexa bench``."""
    from helexa.cli.bench import bench_group

    run(bench_group, "helexa-bench")


def acp() -> None:
    """``helexa-acp``: the same as ``helexa acp``."""
    from helexa.cli.acp import acp_command

    run(acp_command, "helexa-acp")
