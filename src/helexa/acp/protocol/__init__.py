"""The Agent Client Protocol on the wire: JSON-RPC over stdio, and the shapes of its updates.

The official SDK is not imported here: its models take half a second to build, and an editor
waits for ``initialize``. The tests drive the agent with that SDK's client and hold every message
against the published schema.
"""
