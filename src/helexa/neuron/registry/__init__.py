"""What is loaded on this node: the table of models and the one way to change it.

``Registry`` owns the table and every model's life in it; ``ServedModel`` is one loaded model with
everything a request needs; ``ModelLoader`` is the effect that makes one. Requests only look up;
this room must not read a request's body or talk HTTP.
"""
