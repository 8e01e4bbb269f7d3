"""Leaving the notebook: LoRA, merged weights and GGUF, each written from a copy and read back before it counts.

`saving.py` is the way in: what is asked is checked, written (`lora.py`, `merged.py`, `gguf.py`), put in its place among
a person's files (`target/`), opened by the program it is for (`readback/`), and told of (`report.py`). Another kind of
export is a file beside these three and a function in `saving.py`.

Doors: `gguf`, `gguf_feasibility`, `hub`, `lora`, `merged`, `readback/llama_cpp`, `readback/mlx_lm_reader`, `report`,
`saving`, `usage`.
"""
