"""The pass over a micro-batch: in which forms it is computed, proven and timed on a run's own first micro-batch.

`first_step.py` has the order of things. A form is added to `fast/forms.py`, and to `candidates.py` to be tried.
`beforehand.py` asks a reference of all rows before the first step.
"""
