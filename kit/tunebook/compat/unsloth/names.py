"""Settings of TRL's and transformers' records: their defaults, and those that set nothing here.

Defaults and meanings are those of transformers 5.18 and TRL 1.16; a test holds them against what is installed. Names
that this kit has too are nowhere here, and what is said of the others stands in `settings/foreign_names.py`, unless
here.
"""

from collections.abc import Mapping
from typing import Any

TRAINING_ARGUMENTS: Mapping[str, Any] = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "num_train_epochs": 3.0,
    "max_steps": -1,
    "learning_rate": 5e-5,
    "lr_scheduler_type": "linear",
    "warmup_steps": 0,
    "optim": "adamw",  # adamw_torch_fused is this
    "weight_decay": 0.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0,
    "per_device_eval_batch_size": 8,
    "save_steps": 500,
    "save_total_limit": None,
    "seed": 42,
}
DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "TrainingArguments": TRAINING_ARGUMENTS,
    "SFTConfig": {**TRAINING_ARGUMENTS, "learning_rate": 2e-5},
    "DPOConfig": {**TRAINING_ARGUMENTS, "learning_rate": 1e-6},
    "ORPOConfig": {**TRAINING_ARGUMENTS, "learning_rate": 1e-6},
    "KTOConfig": {**TRAINING_ARGUMENTS, "learning_rate": 1e-6, "train_sampling_strategy": "sequential"},
}
OUTPUT_DIR = "trainer_output"  # transformers' own where none is given

_AS_IT_IS = "nothing depends on it here"
_NEVER_CUT = "prompts are never cut by themselves, only the end of a row, at max_length"

# What may be given and sets nothing, with what is said of it; None: what the kit says of that name.
SETS_NOTHING: Mapping[str, str | None] = {
    **dict.fromkeys(
        (
            *("logging_steps", "logging_strategy", "logging_first_step", "logging_dir", "log_level", "disable_tqdm"),
            *("run_name", "bf16", "fp16", "bf16_full_eval", "fp16_full_eval", "save_only_model", "save_safetensors"),
            *("do_train", "do_eval", "dataset_num_proc", "dataset_batch_size", "dataset_kwargs"),
            *("dataloader_num_workers", "dataloader_pin_memory", "dataloader_persistent_workers"),
            *("dataloader_prefetch_factor", "remove_unused_columns", "gradient_checkpointing_kwargs"),
            *("activation_offloading", "packing_strategy", "padding_free", "use_liger_kernel", "auto_find_batch_size"),
            *("ddp_find_unused_parameters", "use_cpu", "eval_on_start", "overwrite_output_dir"),
        )
    ),
    **dict.fromkeys(
        (
            *("average_tokens_across_devices", "eval_accumulation_steps", "torch_empty_cache_steps", "ddp_timeout"),
            *("logging_nan_inf_filter", "include_num_input_tokens_seen", "prediction_loss_only", "save_on_each_node"),
            *("log_on_each_node", "log_level_replica", "skip_memory_metrics", "length_column_name", "label_names"),
            *("dataloader_in_order", "eval_do_concat_batches", "pad_to_multiple_of", "padding_value", "use_cache"),
            *("label_pad_token_id", "is_encoder_decoder", "unsloth_num_chunks", "project", "batch_eval_metrics"),
        ),
        _AS_IT_IS,
    ),
    **dict.fromkeys(("max_prompt_length", "max_completion_length"), _NEVER_CUT),
}
# Values by which a setting that is not here asks for nothing, and those of single settings.
NOTHING = (None, False, 0, "no", "none", "", [], (), {})
USUAL: Mapping[str, Any] = {
    **{"truncation_mode": "keep_start", "loss_type": "nll", "hub_strategy": "every_save"},
    **{"ref_model_mixup_alpha": 0.6, "ref_model_sync_steps": 512},
}
TRANSLATED = (
    *("dataset_text_field", "assistant_only_loss", "completion_only_loss", "lr_scheduler_kwargs", "max_length"),
    *("eval_strategy", "evaluation_strategy", "save_strategy", "train_sampling_strategy", "group_by_length"),
)
# Of no kit's list of foreign names, and set by nobody who leaves them at a value that asks for nothing.
LEFT_OUT = (
    *("label_smoothing_factor", "full_determinism", "ignore_data_skip", "debug", "parallelism_config", "fsdp"),
    *("model_init_kwargs", "trust_remote_code", "router_aux_loss_coef", "shuffle_dataset", "eval_packing"),
    *("generate_during_eval", "sync_ref_model", "precompute_ref_batch_size", "activation_checkpointing"),
    *("hub_always_push", "hub_revision", "eval_use_gather_object", "liger_kernel_config", "include_for_metrics"),
    *("enable_jit_checkpoint", "optim_target_modules", "torch_compile_backend", "torch_compile_mode"),
    *("trackio_space_id", "trackio_bucket_id", "trackio_static_space_id", "dataloader_multiprocessing_context"),
    *("ddp_bucket_cap_mb", "ddp_broadcast_buffers", "ddp_static_graph", "activation_checkpointing_kwargs"),
    *("restore_callback_states_from_checkpoint",),
)
