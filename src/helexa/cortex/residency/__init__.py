"""What is loaded where. For now: cold loads, one per model however many wait for it.

This room must not look at requests; it is asked for a model and makes it warm.
"""
