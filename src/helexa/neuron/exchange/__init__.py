"""One inference request on the node: admitted, sent to its engine, metered, forwarded, settled.

``Exchange`` is the life of a request, ``Delivery`` its answer, ``Desk`` what all of them share.
This room knows grants, seats and records; it must not know an engine's habits (``Engine.clean``
does) or manage models.
"""
