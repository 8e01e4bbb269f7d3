"""What a training step minimises: a model and a batch in, a sum of losses out, which its caller divides.

An objective is a file here with the functions of `next_token.py`: which predictions of a batch count, the sum over them
that is differentiated, and the same sum where no gradient is wanted. It is given a `Family`, asks it for hidden states
and the head, and never for what kind of model made them. There is one so far, and `train/step.py`,
`train/evaluation.py` and `memory/` take it by name.

Doors: `next_token`.
"""
