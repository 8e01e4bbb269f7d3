"""Runs in processes of their own, for tests to kill, stop and compare. Those of `forked.py` are quick to start.

`ranks_*` and `ddp_child` are the processes of one run in several, `dying_child` is the child of a job.
"""
