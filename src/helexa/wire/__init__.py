"""Dialects to and from ``core``, pure: bytes in, values out, and back.

Peeking at a request, SSE framing, error envelopes and, per dialect, decoders and renderers.
Nothing here waits, opens or remembers anything between requests.
"""
