"""One trainer each: `python -m workers.<name> job.json` takes some steps in a process of its own and says how long.

A job and an answer are JSON; `job.py` says what is in them. A worker runs in the environment of its trainer.
"""
