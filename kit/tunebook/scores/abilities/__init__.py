"""What a model can do beside its task: an exam of general abilities, small, ours, and on the disk with the kit.

`exam.py` makes it of rows that people wrote (`written.py`, the .jsonl files) and of rows that are generated (`numbers`,
`words`, `sentences`), and of instructions whose keeping a program checks (`instructions.py`). The same seed gives the
same rows on every machine (`draws.py`).
"""
