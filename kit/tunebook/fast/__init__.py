"""The same numbers in less time or memory: a model in, a context out in which its layers compute them so.

Which forms there are and what each machine takes is said in `forms.py`, a model is put in them in `training_form.py`,
and nowhere else; a new one is a file beside those.

Doors: `exponentials`, `forms`, `gated_delta_layers`, `gated_mlp`, `training_form`.
"""
