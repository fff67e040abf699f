"""Every step of the ledger's schema, in order. Add at the end; never change one.

::

    lives 1 ──── n blocks n ──── 1 scopes 1 ──── n windows 1 ──── n buckets
      └──── n requests                       spent = Σ requests + archived

A *life* is one epoch of one gateway; its ``keeper`` (itself, or a later life that recovers it)
is the only one that settles its requests. A *scope* is what a cap binds: ``key:ID`` or
``account:ID``. A *block* is a part of a scope's room that one life has been given, durably; it
grants from it in memory. ``requests`` has a row for everything that was settled (``settled``) or
given up at an estimate (``expired``), for attempts of which nothing was relayed (``discarded``:
they cost nothing, whatever a node's record says), and for running requests whose node has asked
for more (``open``): the last count heard of. Times are epoch milliseconds, except leases (seconds).
"""

from __future__ import annotations

from typing import Final

from helexa.cortex.ledger.keys_sql import KEYS
from helexa.cortex.ledger.schema import Step
from helexa.cortex.ledger.usage import USAGE

SPEND: Final = Step(
    "lives, scopes, blocks, windows and requests",
    (
        """
        CREATE TABLE lives (
          life BIGINT PRIMARY KEY,
          gateway TEXT NOT NULL,
          epoch BIGINT NOT NULL,
          state TEXT NOT NULL,
          lease_until DOUBLE PRECISION NOT NULL,
          keeper BIGINT NOT NULL,
          kept_until DOUBLE PRECISION NOT NULL,
          batch BIGINT NOT NULL DEFAULT 0,
          UNIQUE (gateway, epoch))
        """,
        """
        CREATE TABLE scopes (
          scope TEXT PRIMARY KEY,
          spent BIGINT NOT NULL DEFAULT 0,
          archived BIGINT NOT NULL DEFAULT 0,
          requests BIGINT NOT NULL DEFAULT 0,
          prompt BIGINT NOT NULL DEFAULT 0,
          completion BIGINT NOT NULL DEFAULT 0)
        """,
        """
        CREATE TABLE blocks (
          scope TEXT NOT NULL,
          life BIGINT NOT NULL,
          tokens BIGINT NOT NULL,
          PRIMARY KEY (scope, life)) WITHOUT ROWID
        """,
        """
        CREATE TABLE windows (
          scope TEXT NOT NULL,
          seconds BIGINT NOT NULL,
          PRIMARY KEY (scope, seconds)) WITHOUT ROWID
        """,
        """
        CREATE TABLE buckets (
          scope TEXT NOT NULL,
          seconds BIGINT NOT NULL,
          bucket BIGINT NOT NULL,
          tokens BIGINT NOT NULL,
          PRIMARY KEY (scope, seconds, bucket)) WITHOUT ROWID
        """,
        """
        CREATE TABLE requests (
          request_id TEXT NOT NULL,
          attempt BIGINT NOT NULL,
          life BIGINT NOT NULL,
          state TEXT NOT NULL,
          at BIGINT NOT NULL,
          account_id TEXT NOT NULL,
          key_id TEXT NOT NULL,
          node TEXT NOT NULL,
          model TEXT NOT NULL,
          granted BIGINT,
          used BIGINT NOT NULL DEFAULT 0,
          prompt BIGINT NOT NULL DEFAULT 0,
          completion BIGINT NOT NULL DEFAULT 0,
          cached BIGINT NOT NULL DEFAULT 0,
          reasoning BIGINT NOT NULL DEFAULT 0,
          overrun BIGINT NOT NULL DEFAULT 0,
          estimated BIGINT NOT NULL DEFAULT 0,
          PRIMARY KEY (request_id, attempt)) WITHOUT ROWID
        """,
        "CREATE INDEX requests_at ON requests (at)",
        "CREATE INDEX requests_open ON requests (life) WHERE state = 'open'",
    ),
)

STEPS: Final = (SPEND, KEYS, USAGE)
