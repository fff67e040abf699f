"""What a model's own files say about it: formats and physics.

Nothing here loads a model or knows an engine. Headers are read once, into frozen facts; everything
that is decided about memory, limits and capabilities is decided from those.
"""
