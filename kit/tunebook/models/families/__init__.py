"""The kinds of model the kit trains, behind one interface; which one a model is, the loader decides once.

`base.py` is the interface; `text.py` and `vision.py` are the kinds there are. A new one is a class beside these two and
a line of `family_of` in `models/loader/family.py`. One that wraps another hands on its attributes as well. The other
files serve both (`head.py`, `tables.py`), rows of text (`document_mask.py`), or rows with images: all the rest, of
which `quirks.py` is the table of mlx-vlm's families.
"""
