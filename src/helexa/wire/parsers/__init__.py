"""Reading what a model wrote: thoughts, text and tool calls out of its plain stream of text.

For engines that hand the model's text through as it is. Pure and incremental: deltas in, the
events of ``core.events`` out, the same ones however the text was cut into deltas. No I/O, no
clock, and nothing of any engine.
"""
