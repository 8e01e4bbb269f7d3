"""A plan in, events out: batches become losses, gradients and updates, and a checkpoint can go on from any step.

`loop.py` says what comes when, `step.py` makes the numbers of a step, `kept/` is what is left on the disk for a run to
go on from, `ranks/` how several processes take its steps together. An optimizer or a schedule is added in `optim/`.

Doors: `datasets`, `evaluation`, `kept/checkpoint`, `kept/identity`, `kept/saving`, `kept/snapshots`, `loop`, `optim`,
`passes/beforehand`, `passes/self_test`, `passes/slow_here`, `plan`, `ranks/check`, `ranks/group`, `ranks/launch`,
`start`, `step`.
"""
