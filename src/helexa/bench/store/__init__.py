"""The store: SQLite in WAL mode, one row per run, one row per cell with what is asked for most.

The one writer is the sweep; readers have connections of their own and never hold it up.
"""
