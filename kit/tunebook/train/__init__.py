"""A plan in, events out: batches become losses, gradients and updates, and a checkpoint can go on from any step.

`loop.py` says what comes when, `step.py` makes the numbers of a step, `kept/` is what is left on the disk for a run to
go on from.

<<<<<<< HEAD
Doors: `datasets`, `evaluation`, `kept/checkpoint`, `kept/earlier_runs`, `kept/identity`, `kept/run_files`,
`kept/saving`, `loop`, `optim`, `plan`, `step`.
=======
Doors: `datasets`, `evaluation`, `kept/checkpoint`, `kept/identity`, `loop`, `optim`, `plan`, `start`, `step`.
>>>>>>> 4718cdf (How a run begins, what it looks at, why a step failed and what it is asked are files of their own; gradient checkpointing is settled in one place)
"""
