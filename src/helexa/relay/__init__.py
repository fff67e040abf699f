"""The HTTP/1.1 data plane: server protocol, upstream pool, and the exchange between the two.

Bytes only. What a byte means is told by the caller through small hooks; this room must not know
a dialect, a model, a key or a node.
"""
