"""The command line. Subcommands are imported only when they run, so ``--help`` stays cheap.

stdout is data, stderr is log; exit status 2 is wrong usage or configuration, 3 could not start.
"""
