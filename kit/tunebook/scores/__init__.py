"""What a model can do: rows it was not trained on are asked, its answers judged, and two models told apart.

Numbers over rows, and how sure they are, are in `statistics.py` and `difference.py`, which know no models.
"""
