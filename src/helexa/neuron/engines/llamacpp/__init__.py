"""llama.cpp through xllamacpp: its own C++ server, hosted by a child process per model.

``engine`` is the knowledge (what runs, how much memory, which settings), ``child`` is the
process, ``clean`` knows the server's habits on the wire. Nothing else imports xllamacpp.
"""
