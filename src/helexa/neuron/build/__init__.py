"""Wires the node: the only room that names concrete classes.

::

    settings ─▶ parts ─▶ node ─▶ listen ─▶ ready line ─▶ serve ─▶ SIGTERM ─▶ drain ─▶ nothing left

``engines`` names the engines and where model files come from, ``parts`` what is made before
anything listens, ``resident`` what surrounds one loaded model, ``node`` the node itself, and
``serve`` is its life. Nothing outside this room but the command line may import it.
"""

from helexa.neuron.build.serve import run

__all__ = ["run"]
