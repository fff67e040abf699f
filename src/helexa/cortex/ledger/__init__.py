"""What a key may still spend, and what it has spent.

``base`` is the door: grants are asked for, extended while tokens flow, and settled once. A store
behind it is in memory (``memory``) or durable. This room must not know HTTP, nodes or models; it
counts tokens.
"""
