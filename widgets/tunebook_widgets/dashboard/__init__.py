"""A run as a person sees it: live in a notebook or a terminal, and frozen once it is over.

Events go in at `dashboard.Dashboard`, are folded into what has happened so far (`progress.py`), and leave as a live
view, a picture and a table, or lines of text. Nothing here knows a model.
"""
