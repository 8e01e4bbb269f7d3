"""Whoever scores choices: `python -m workers.scores.<name> job.json`, as the others of `workers`."""
