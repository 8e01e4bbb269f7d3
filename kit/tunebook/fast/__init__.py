"""The same numbers in less time or memory: a model in, a context out in which its layers compute them so.

Which forms a model is run in is put together in `training_form.py` and nowhere else; a new one is a file beside it.

Doors: `exponentials`, `gated_mlp`, `training_form`.
"""
