"""Every route of the gateway that is not relayed: what clients ask about, and administration.

A Starlette app behind the same port as the data plane. Handlers are thin; they must not decide
anything that another room decides.
"""
