"""The vocabulary: errors, usage, principals, what a node says about itself, settings, logging.

Everything here is plain data or a pure function of its arguments. No sockets, no engines, no
knowledge of HTTP: status codes and dialects are rendered in ``helexa.wire``.
"""
