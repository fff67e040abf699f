"""``python -m helexa.cli`` is ``helexa``."""

from helexa.cli import main

main()
