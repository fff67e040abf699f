"""A fake engine that is a real process: deterministic, cheap, with faults on command.

It speaks llama.cpp's HTTP, so everything between a client and an engine is exercised without a
model: in tests, and in the simulator of whole fleets. Never chosen for a user's request.
"""
