"""The node's HTTP face: management routes (Starlette) and inference routes (on the relay)."""
