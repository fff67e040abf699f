"""Anthropic's Messages dialect: its requests as ``core.chat``, ``core.events`` as its answers.

``body`` is what clients send, typed; ``decode`` makes a request of it; ``stream`` and ``plain``
render answers; ``dialect`` puts them together. Errors are ``wire.errors`` with the dialect
``anthropic``.
"""
