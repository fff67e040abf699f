"""helexa: one address for a fleet of machines that run language models.

Read the packages in the order a request meets them: ``cortex`` (the gateway) and ``neuron``
(the node) stand on ``relay`` (bytes), ``wire`` (dialects) and ``core`` (the vocabulary).
"""
