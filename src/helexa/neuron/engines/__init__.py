"""Engines: one file or folder per engine behind the protocol of ``base.py``, and the supervisor.

Adding an engine is adding one implementation here; nothing outside this room may know an
engine's habits. An engine never runs inside the node's process.
"""
