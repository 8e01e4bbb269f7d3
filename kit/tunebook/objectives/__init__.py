"""What a training step minimises: a batch and a model in, a sum of losses and a weight out.

An objective is a file here; it sees hidden states and never what kind of model made them.

Doors: `next_token`.
"""
