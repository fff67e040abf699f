"""What is loaded where: cold loads, and who makes room for them.

``world`` is what a decision reads and ``choose`` the decision, both pure; ``scheduler`` is the
state machine of loads and evictions, without a clock or a socket; ``owner`` is the one task that
feeds it and acts for it through ``effects``; ``waiting`` holds the requests that wait. This room
must not look at requests; it is told how many wait for which model.
"""
