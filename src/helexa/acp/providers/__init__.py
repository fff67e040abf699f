"""Endpoints as the agent sees them: models to choose from, and streams of core events."""
