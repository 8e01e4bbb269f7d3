"""The door for people who come from elsewhere: other kits' names in, this kit's own things out.

`unsloth/` has the names of Unsloth and TRL as its notebooks use them, so that one runs once its import line is changed;
`mlx_lm/` makes a trainer, and with it a job, of an `mlx_lm.lora` config. There is no second trainer here and nothing is
patched: each name is put into this kit's terms. What differs on purpose is said once, in a sentence; what could not be
followed is an error that says what to write. Nothing in the kit imports this wing.
"""
