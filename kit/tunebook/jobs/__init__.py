"""A run as a thing by itself: begun here, or in a process of its own that outlives the notebook.

    >>> waiting = jobs.queue()

`work.py` is what a run begins with. `written.py` makes a folder of it, part by part (`carried/`), and `opened.py` work
again, on any machine; `layout.py` says what lies where. `training.py` is the run of such a folder in the process that
is for it, `supervisor.py` the process beside that: it waits for its turn (`tickets.py`, `queue.py`), watches
(`watch.py`, `life.py`), says why a process ended (`causes.py`) and begins again. Neither knows the notebook, which is
known by the lock it holds (`runs/looked_after/`). The same work is not begun twice (`earlier.py`), and what else a
kernel does is told of with what it costs its runs (`beside.py`).

Doors: `beside`, `layout`, `queue`, `run`, `starting`, `supervisor`, `training`, `work`.
"""

from .queue import Queue, Queued, queue
from .run import Run, RunFailed, find

__all__ = ["Queue", "Queued", "Run", "RunFailed", "find", "queue"]
