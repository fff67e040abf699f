"""Measuring: probes, scenarios, sweeps, their store and its pictures.

Talks to nodes and gateways over HTTP like any client; must not import either.
"""
