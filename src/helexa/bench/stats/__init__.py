"""Statistics: pure functions over samples; no clock, no store."""
