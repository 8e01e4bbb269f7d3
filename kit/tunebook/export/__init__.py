"""Leaving the notebook: LoRA, merged weights and GGUF, each written from a copy and read back before it counts."""
