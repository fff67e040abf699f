"""The life of one request at the gateway, from its first check to its settlement.

``exchange`` is the verb chain and ``sending`` its part between grant and answer; ``desk`` is what
all exchanges share, ``route`` what there is to ask for; ``billing`` decides what an ended attempt
costs, ``settling`` sees to the counts that only the node knows, and ``mail`` tells nodes what was
booked. Other decisions are taken elsewhere (auth, ledger, routing).

Where other rooms join: ``desk.ledger.grant`` may return something to await, ``desk.placer.find``
is given the request and its headers, and a ``Route`` with ``translate`` speaks another dialect
(``StreamRelay`` renders events through it, ``sending`` whole answers).
"""
