"""Leaving the notebook: LoRA, merged weights and GGUF, each written from a copy and read back before it counts.

`saving.py` is the way in: what is asked is checked, written (`lora.py`, `merged.py`, `gguf/`), put in its place among
a person's files (`target/`), opened by the program it is for (`readback/`), and told of (`report.py`).

Another kind of export is a file beside these three that writes into an empty folder, a function in `saving.py`, and a
method of `FastModel` for people to call. Its name goes into the table of `target/own_files.py`, with the files it
replaces; who opens it into `readback/other_programs.py`, or it is not verified and says so in a note; and if it has a
model card, how to open it into `usage.py` and `card.py`.

Doors: `gguf/feasibility`, `gguf/files`, `hub`, `lora`, `merged`, `readback/asking`, `readback/bos`,
`readback/llama_cpp`, `readback/mlx_lm_reader`, `report`, `saving`, `table`, `tokenizer`, `usage`.
"""
