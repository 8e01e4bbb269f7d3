"""Rows in, examples out: which text there is, and which of it is trained. No model is known here.

A kind of file is a file in `sources/` and an entry in `sources/paths.py`; a format of rows is a file in `formats/` and
an entry in `formats/recognition.py`.

Doors: `answers`, `encoded`, `examples`, `formats`, `formats/documents`, `formats/templates`,
`images`, `opened`, `pretraining`, `questions`, `reach`, `row_kinds`, `sources`, `tokenizer_state`.
"""
