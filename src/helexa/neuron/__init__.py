"""The node: hardware, models and engines of one host, told truthfully.

``build.py`` wires it. Each loaded model is one engine process behind one protocol; this room
must not know of other nodes, of accounts' budgets (only of the grant it is given) or of routing.
"""
