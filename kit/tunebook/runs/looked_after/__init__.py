"""A run that a process beside it looks after (`jobs/supervisor.py`): whether there is one, what it says, who wants it.

All is read from `process/` of the run's folder, so that whoever watches a run knows it without knowing jobs.
"""
