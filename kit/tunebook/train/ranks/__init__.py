"""Several processes that train one model together: each takes its share of a step, and all make the same update.

MLX's own engine moves the bytes (`mlx.launch`, or whoever sets its environment). `group.py` is what a run asks of the
others, `watch.py` sees to it that none of them waits for one that is gone, `shares.py` deals out the micro-batches of a
step, `check.py` holds the processes against each other before the first step and now and then, and `lanes.py` tells how
each of them fares. A run in one process has `ALONE`, which does nothing and costs nothing.
"""
