"""A folder of adapters, as PEFT or an MLX program left it -> adapters on a loaded model, or a refusal."""
