"""The gateway's keys while they change: made, rotated, revoked, and taken in from other gateways.

``keyring`` owns them; ``auth`` is what a request is looked up in; the ledger keeps what must last.
This room must not know HTTP or requests, and never keeps a secret: one that is made is handed to
the caller and forgotten.
"""
