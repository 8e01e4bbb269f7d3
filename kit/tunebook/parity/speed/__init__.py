"""The same few steps in this kit and in mlx-lm's own trainer, each timed in a process of its own, on random weights.

A machine comes in, a report on it goes out (`report.py`): plain values, none of which tells whose machine it is.
"""
