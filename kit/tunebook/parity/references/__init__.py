"""The other programs: transformers and PEFT under torch, stock mlx-lm, torch's optimizers, 4-bit NormalFloat."""
