"""How each architecture is named and arranged in config.json and in GGUF: the table, its parts, and the look-up."""
