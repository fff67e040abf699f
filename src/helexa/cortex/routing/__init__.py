"""Who serves this: pure decisions over frozen snapshots, and the leases they rest on.

``decide`` says whether a model can be served, waited for, woken or only refused; ``rank`` orders
the places that can serve. ``placer`` joins them with the fleet and the loader. This room must
not open connections.
"""
