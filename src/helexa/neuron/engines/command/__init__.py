"""Any OpenAI-compatible server as an engine, started by a command of the operator's.

::

    [engines.command.NAME] ─▶ places filled ─▶ child (owns the server's process) ─▶ server
                                                    port, key file, log, lifeline

What the server cannot do is said in its section: members that clients may not send, whether its
text has to be read for calls and thoughts. Nothing here knows a server by name.
"""
