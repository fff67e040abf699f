"""A hub that serves a folder, with faults on command; shipped, so that others can try theirs.

It speaks what clients of Hugging Face's hub use: model information with sizes and digests, the
tree, searching, ``resolve`` with redirects to a content address, ranges and entity tags.
"""
