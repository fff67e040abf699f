"""The command line. Subcommands are imported only when they run, so ``--help`` stays cheap.

stdout is data, stderr is log; exit status 2 is wrong usage or configuration, 3 could not start.
The functions here are the installed scripts.
"""

import os
import sys


def hold_streams() -> None:
    """Open what a parent has closed: no socket of ours may become descriptor 1, which is data."""
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass  # it fills a hole
    os.close(spare)
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def main() -> None:
    """``helexa``: everything."""
    from helexa.cli.app import helexa

    hold_streams()
    helexa(prog_name="helexa")


def cortex() -> None:
    """``cortex``: the gateway's own script, with ``serve`` and ``status``."""
    from helexa.cli.cortex import cortex_script

    hold_streams()
    cortex_script(prog_name="cortex")


def neuron() -> None:
    """``neuron``: the same as ``helexa neuron``."""
    from helexa.cli.neuron import neuron_command

    hold_streams()
    neuron_command(prog_name="neuron")


def bench() -> None:
    """``helexa-bench``: the same as ``helexa bench``."""
    from helexa.cli.bench import bench_group

    hold_streams()
    bench_group(prog_name="helexa-bench")


def acp() -> None:
    """``helexa-acp``: the same as ``helexa acp``."""
    from helexa.cli.acp import acp_command

    hold_streams()
    acp_command(prog_name="helexa-acp")
