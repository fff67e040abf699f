"""The command line. Subcommands are imported only when they run, so ``--help`` stays cheap.

stdout is data, stderr is log; exit status 2 is wrong usage or configuration, 3 could not start.
The functions here are the installed scripts.
"""


def main() -> None:
    """``helexa``: everything."""
    from helexa.cli.app import helexa

    helexa(prog_name="helexa")


def cortex() -> None:
    """``cortex``: the gateway's own script, with ``serve`` and ``status``."""
    from helexa.cli.cortex import cortex_script

    cortex_script(prog_name="cortex")


def neuron() -> None:
    """``neuron``: the same as ``helexa neuron``."""
    from helexa.cli.neuron import neuron_command

    neuron_command(prog_name="neuron")


def bench() -> None:
    """``helexa-bench``: the same as ``helexa bench``."""
    from helexa.cli.bench import bench_group

    bench_group(prog_name="helexa-bench")


def acp() -> None:
    """``helexa-acp``: the same as ``helexa acp``."""
    from helexa.cli.acp import acp_command

    acp_command(prog_name="helexa-acp")
