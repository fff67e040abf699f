"""What every OpenAI-compatible engine needs: requests out, foreign streams in, clean chat.

::

    client's body ─▶ request: checked, repaired, barred members out ─▶ engine
                                                                          │ chunks, as they may come
    clean chat ◀── chat, text ◀── stream: counted ◀── reader (text ─▶ calls, thoughts) ◀──────────┘

An engine says what sets it apart in ``habits``, shapes the prepared body in its own words, and
hands over a ``reader`` where it does not parse tool calls or reasoning itself. What is here knows
no engine by name, starts nothing and waits for nothing but ``count``.
"""
