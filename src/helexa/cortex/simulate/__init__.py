"""A fleet of simulated nodes under the gateway's own decisions: what would happen if.

``trace`` and ``fleet`` are the inputs, ``place`` is an engine in virtual time, ``run`` moves the
clock, ``policies`` says who serves what, ``report`` adds up. The clients, the nodes and the clock
are simulated; who serves what is decided by ``routing`` and what is loaded where by
``residency``, imported and not copied. This room must not open connections or sleep.
"""
