"""Sessions: what was said and done, kept whole after every turn."""
