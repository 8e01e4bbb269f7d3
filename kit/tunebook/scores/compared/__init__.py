"""Marks of several models side by side, and how sure each difference is.

Marks come in; tables, pictures and sentences go out. `difference.py` tells two models apart in one metric,
`comparison.py` several models in one exam, `gained_and_lost.py` in several exams.
"""
