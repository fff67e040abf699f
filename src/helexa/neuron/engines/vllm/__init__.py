"""vLLM in its own process and its own environment: paged KV, tensor parallel, Ray.

::

    build: which interpreter ─▶ planning: memory, devices, slots ─▶ options: its arguments
                                                                       │ stdin
    engine: probe, load figures, shape ◀── unix socket ── launcher: runs there, stdlib only

The requests and streams are those of ``engines.compatible``; ``parsers`` says which of vLLM's
parsers a model family needs. Only ``launcher`` runs in the other interpreter, and nothing here
imports vLLM.
"""
