"""Measuring: every build of every target, by one probe, kept for good and shown as pictures.

::

    settings ─▶ targets ─▶ due cells ─▶ scenario ─▶ probe ─▶ run ─▶ store
                (build,     (pure)                                   │
                 models)                        report │ api ◀─ statistics (pure)

Talks to nodes and gateways over HTTP like any client; must not import either.
"""
