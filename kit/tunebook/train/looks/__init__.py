"""Looks at a model in the middle of a run: its held-out loss, its exam, what it writes after the prompts."""
