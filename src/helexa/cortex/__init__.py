"""The gateway: who asks, what may they spend, which node answers.

``build.py`` wires it. It meets nodes over HTTP only and must never import an engine or look at
a GPU.
"""
