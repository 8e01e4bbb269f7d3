"""What a person may write: each setting and argument read, refused or explained by the type it is declared with.

`taken.py` is the way in: a record or a function whose parameters are annotated with a type, limits (`values.py`) and a
sentence on the meaning is checked by them, shows them in its docstring (`meanings.py`), and answers a name that other
kits have with what to write here (`foreign_names.py` and `foreign_values.py`). `json_values.py` holds what JSON gave
against a type. Standard library only; nothing here knows what a setting is for.

Doors: `arguments`, `json_values`, `schedules`, `taken`, `values`.
"""
