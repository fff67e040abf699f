"""The read-only API and the pages: what the store says, over HTTP."""
