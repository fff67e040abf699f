"""What a key may still spend, and what it has spent.

``base`` is the door: grants are asked for, extended while tokens flow, and settled once. ``book``
answers from blocks of tokens that a store has durably set aside; ``durable`` keeps the two in step,
and ``outbox`` writes down what was settled.
This room must not know HTTP, nodes or models; it counts tokens.
"""
