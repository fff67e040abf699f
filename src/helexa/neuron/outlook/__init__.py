"""What would become of a model if it were loaded now, without loading it.

::

    Scout.find ─▶ facts, choice ─▶ plan ──fits──▶ Outlook: engine, memory by kind, context, limit
                                    └─refused──▶ Outlook: why, and what would make it fit

The way is a load's own (``registry.scout``), so what is foretold is what happens. Nothing here
fetches a file or starts an engine.
"""

from helexa.neuron.outlook.foretell import Foreteller

__all__ = ["Foreteller"]
