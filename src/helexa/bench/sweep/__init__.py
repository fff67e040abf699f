"""The sweep: which cells are due, in which order, and running them one after the other."""
