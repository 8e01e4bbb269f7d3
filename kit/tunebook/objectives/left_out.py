"""Settings of TRL's records that no objective here takes, and where they are: for sentences that name them.

What one objective leaves out for a reason of its own stands with it.
"""

_CONFIG = "it is TrainingConfig's"

# TRL 1.16: trl/trainer/dpo_config.py, trl/trainer/kto_config.py and those of trl/experimental.
ELSEWHERE = {
    "learning_rate": _CONFIG,
    "gradient_checkpointing": _CONFIG,
    "per_device_train_batch_size": "it is TrainingConfig's, where a pair is one row",
    "train_sampling_strategy": "it is TrainingConfig.dataset_order",
    "logging_steps": "every step is reported",
    "bf16": "the type is that of FastModel.from_pretrained(dtype=...)",
    "max_length": "it is FastModel.from_pretrained(max_seq_length=...)",
    "max_prompt_length": "only the end of a row is cut, at FastModel.from_pretrained(max_seq_length=...)",
    "max_completion_length": "only models that are no encoder-decoders are trained, at max_seq_length together",
    "truncation_mode": "a row is always cut at its end, which is TRL's keep_start",
    "model_init_kwargs": "the model is loaded by FastModel.from_pretrained",
    "trust_remote_code": "it is FastModel.from_pretrained's",
    "dataset_num_proc": "rows are tokenized by all cores already",
    "padding_free": "the rows of a pair are padded to one width, and never packed",
    "pad_to_multiple_of": "rows are padded to a multiple of 32",
    "pad_token": "what stands in the padding is never read",
    "padding_value": "what stands in the padding is never read",
    "activation_offloading": "memory is one here; TrainingConfig(gradient_checkpointing=True) takes less of it",
    "is_encoder_decoder": "only models that are no encoder-decoders are trained",
    "generate_during_eval": "it is TrainingConfig.sample_steps",
    "router_aux_loss_coef": "routers have no loss of their own here",
    "sync_ref_model": "the reference is the model as it was before the run, and stays it",
    "ref_model_mixup_alpha": "the reference is the model as it was before the run, and stays it",
    "ref_model_sync_steps": "the reference is the model as it was before the run, and stays it",
    "ref_model": "the reference is the model as it was before the run",
}
