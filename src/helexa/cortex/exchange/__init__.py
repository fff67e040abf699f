"""The life of one request at the gateway, from its first check to its settlement.

``exchange`` is the verb chain; ``desk`` is what all exchanges share; ``settling`` sees to the
counts that only the node knows. Decisions are taken elsewhere (auth, ledger, routing).
"""
