"""Who is out there: one task per node keeps a frozen snapshot of it, everyone else reads.

``fleet`` owns the tasks and the snapshot, ``node`` is one task's loop, ``client`` speaks to a
node's management routes. This room must not decide anything about requests.
"""
