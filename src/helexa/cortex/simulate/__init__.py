"""A fleet of simulated nodes under the gateway's own decisions: what would happen if.

The nodes, the clock and the clients are simulated; where a request goes is decided by
``routing``, which is imported and not copied. This room must not open connections or sleep.
"""
