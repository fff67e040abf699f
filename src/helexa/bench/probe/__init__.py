"""The probe: one timed stream, the same for every target."""
