"""The fleet in the editor: an Agent Client Protocol agent over stdio.

::

    editor ⇄ protocol ─▶ agent ─▶ turn ─▶ provider (endpoint's stream ─▶ core events)
                           │        ├─▶ permission ─▶ tools (through the editor, else inside roots)
                           │        └─▶ compaction, when the window fills
                           └─▶ sessions, stored whole after every turn

stdout carries protocol and nothing else. Talks to endpoints over HTTP like any client; must not
import the gateway or the node.
"""
