"""tokenizer.json and its companions <-> the vocabulary that GGUF stores."""
