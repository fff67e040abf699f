"""Bringing files here, in a process of its own.

::

    node ──Job──▶ worker process ──▶ hub, CDN
         ◀─Told─┘   one thread per file: lock ▸ resume ▸ write ▸ hash beside it ▸ verify ▸ publish

A download is heavy on the interpreter and on the disk; in its own process it costs the node's
streams nothing, it can be ended at once, and it ends with the node. What has arrived stays in
``<blob>.incomplete`` under its final offset, so the next attempt starts where this one was ended.
This room knows HTTP and files, and neither hubs nor models.
"""
