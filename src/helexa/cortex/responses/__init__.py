"""Responses that are kept, so that a client may continue, fetch and delete them.

``base`` says what is kept and what a shelf can do; ``memory`` and ``sql`` are the shelves;
``keeper`` owns them in a thread of its own, so that the loop never waits for a disk; ``route``
joins them with the dialect. Bounded in bytes and in time. Nothing here knows nodes or budgets.
"""
