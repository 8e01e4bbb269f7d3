"""Trainers on pairs of answers: `python -m workers.preferences.<name> job.json`, as the others of `workers`."""
