"""OpenAI's Responses dialect: its requests as ``core.chat``, ``core.events`` as its answers.

``body`` is what clients send, typed; ``decode`` makes a request of it, with ``turns`` for the
items and ``tools`` for what may be called; ``answer`` holds the shapes of a response, ``stream``
renders one (a plain body is its last event). What is kept of earlier responses is not the
dialect's business: whoever keeps it hands the items in.
"""
