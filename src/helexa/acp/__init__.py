"""The editor bridge: an Agent Client Protocol agent over stdio on top of any endpoint.

Must not import the gateway or the node; stdout belongs to the protocol.
"""
