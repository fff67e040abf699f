"""Hugging Face and the hubs that speak its protocol.

``api`` asks what a repository has, ``cache`` knows what of it is here, ``hub`` joins the two and
has the rest fetched. The cache is laid out as ``huggingface_hub`` does it, so its tools and ours
share files and locks.
"""
