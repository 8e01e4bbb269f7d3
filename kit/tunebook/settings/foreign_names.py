"""Names that people know from Unsloth, TRL, PEFT, transformers and mlx-lm, and what to write here in their place.

An answer is what comes behind "TrainingConfig takes no logging_steps: ". What stands in backquotes is Python: a whole
call, or an argument for the call that was refused; `{value!r}` is what was given. A test runs each of them, with
`model`, `tokenizer`, `trainer`, `rows`, `held_out_rows`, `prompt`, `name` and `folder` at hand.
"""

Answers = dict[str, str]


def _each(names: str, answer: str) -> Answers:
    return dict.fromkeys(names.split(), answer)


_TYPE_OF_FLOATS = "the type of the weights is chosen where they are loaded: `FastModel.from_pretrained(name, dtype=%r)`"
_ADAPTERS = "adapters are made beforehand: `FastModel.get_peft_model(model%s)`"
_ADAPTER_SETTINGS = {
    name: _ADAPTERS % f", {name}={{value!r}}"
    for name in ("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora", "target_modules", "modules_to_save")
}
_ONE_PROCESS = "rows are read and encoded once, in this process; leave it out"
_TOKENIZER = "the model brings its own tokenizer, and it is saved with it; leave it out: `%s`"
_TO_THE_HUB = "saving sends nothing; call push_to_hub, push_to_hub_merged or push_to_hub_gguf for the hub"
_TEXT_COLUMN = (
    "a text column of another name is read by a function: "
    "`Trainer(model, tokenizer, train_dataset=table, formatting_func=lambda row: row[{value!r}])`"
)
_LENGTH = "`FastModel.from_pretrained(name, max_seq_length={value!r})` or `TrainingConfig(max_seq_length={value!r})`"
_WRITTEN_BY_MLX = "MLX computes on what it was installed for; leave it out"

TRAINING: Answers = {
    **_each(
        "logging_steps logging_strategy logging_first_step logging_dir log_level disable_tqdm steps_per_report",
        "every step is told, to the page, the run's folder and `trainer.add_step_callback(print)`; leave it out",
    ),
    "report_to": "a tracker is told by a listener, `trainer.subscribe(bridges.tensorboard('board'))` after `from "
    "tunebook import bridges`; leave it out",
    **_each("run_name adapter_path", "each run makes a folder of its own in output_dir: `output_dir={value!r}`"),
    "overwrite_output_dir": "each run makes a folder of its own in output_dir; leave it out",
    **_each("bf16 bf16_full_eval", _TYPE_OF_FLOATS % "bfloat16"),
    **_each("fp16 fp16_full_eval", _TYPE_OF_FLOATS % "float16"),
    "tf32": _TYPE_OF_FLOATS % "float32",
    **_each(
        "eval_strategy evaluation_strategy eval_on_start eval_delay",
        "the loss on held-out rows is measured at the start, at the end and, with `eval_steps=50`, every 50 steps",
    ),
    "steps_per_eval": "`eval_steps={value!r}`",
    **_each("save_strategy save_only_model save_safetensors", "checkpoints are whole and written by `save_steps=100`"),
    **_each("save_every steps_per_save", "`save_steps={value!r}`"),
    **_each("do_train do_eval do_predict", "`trainer.train()` trains and `trainer.evaluate(rows)` measures"),
    "dataset_text_field": _TEXT_COLUMN,
    **_each(
        "dataset_num_proc dataset_batch_size dataset_kwargs dataloader_num_workers dataloader_pin_memory "
        "dataloader_persistent_workers dataloader_prefetch_factor dataloader_drop_last",
        _ONE_PROCESS,
    ),
    "remove_unused_columns": "columns that are not read do no harm; leave it out",
    "max_length": "`max_seq_length={value!r}`",
    **_each(
        "assistant_only_loss completion_only_loss mask_prompt train_on_inputs",
        "`train_on='assistant'`, the default, trains what the assistant says, `train_on='everything'` all of it",
    ),
    **_each("padding_free packing_strategy eval_packing", "`packing=True` puts short rows together"),
    "group_by_length": "`dataset_order='length_grouped'`",
    **_each(
        "gradient_checkpointing_kwargs use_gradient_checkpointing grad_checkpoint activation_offloading",
        "`gradient_checkpointing=True`, or 'auto' for a run that would not fit without",
    ),
    **_each("lr lr_max", "`learning_rate={value!r}`"),
    **_each("lr_schedule scheduler", "`lr_scheduler_type='cosine'`"),
    **_each("num_epochs epochs n_epochs", "`num_train_epochs={value!r}`"),
    **_each("iters steps", "`max_steps={value!r}`"),
    **_each("batch_size train_batch_size micro_batch_size", "`per_device_train_batch_size={value!r}`"),
    "eval_batch_size": "`per_device_eval_batch_size={value!r}`",
    **_each("grad_accumulation_steps accumulation_steps", "`gradient_accumulation_steps={value!r}`"),
    **_each("optimizer optimizer_name", "`optim='adamw'`"),
    "optim_args": "an optimizer is set by weight_decay, adam_beta1, adam_beta2 and adam_epsilon; leave it out",
    **_each("clip_grad_norm gradient_clip", "`max_grad_norm={value!r}`"),
    **_each("random_state data_seed", "`seed={value!r}`"),
    "greater_is_better": "a metric knows itself whether more of it is better: leave it out, and name one of the "
    "exam, `load_best_model_at_end=True, metric_for_best_model='exact_match', score_steps=50`",
    "early_stopping": "`early_stopping_patience=3, eval_steps=50`",
    "resume_from_checkpoint": "`trainer.train(resume_from_checkpoint=True)`",
    "torch_compile": "`compile=True`, or 'auto', the default",
    "use_liger_kernel": "the loss is computed without all logits in memory already; leave it out",
    "auto_find_batch_size": "what a run takes is said beforehand by `trainer.memory()`; leave it out",
    "chat_template_path": "a template is given to the model: `FastModel.from_pretrained(name, chat_template=template)`",
    "model_init_kwargs": "a model is loaded first: `FastModel.from_pretrained(name)`; leave it out",
    "enable_thinking": "`thinking={value!r}`",
    "chat_template_kwargs": "`thinking=False`, where the template has a switch for thoughts",
    **_each("eos_token pad_token", "they are the tokenizer's; leave it out"),
    **_each("push_to_hub hub_model_id hub_token hub_strategy hub_private_repo", _TO_THE_HUB),
    **_each(
        "deepspeed fsdp fsdp_config accelerator_config ddp_backend ddp_find_unused_parameters local_rank",
        "a run is one process on one machine; leave it out",
    ),
    **_each("use_cpu no_cuda use_mps_device device", _WRITTEN_BY_MLX),
    **_each("num_layers lora_layers", _ADAPTERS % ", finetune_last_n_layers={value!r}"),
    **_each("lora_parameters peft_config", _ADAPTERS % ", r=16, lora_alpha=16"),
    **_ADAPTER_SETTINGS,
}

ADAPTERS: Answers = {
    "bias": "biases are not trained, as bias='none' has it; leave it out",
    "task_type": "every model here writes text; leave it out",
    "inference_mode": "`FastModel.for_inference(model)` switches dropout off; leave it out",
    **_each(
        "layers_to_transform num_layers", "`finetune_last_n_layers=1` adapts the last layers, counted from the end"
    ),
    **_each(
        "exclude_modules layers_pattern target_parameters", "`target_modules=['q_proj', 'v_proj']` names all to adapt"
    ),
    **_each("rank_pattern alpha_pattern", "all adapters have one rank and one alpha: `r=16, lora_alpha=16`"),
    **_each(
        "init_lora_weights loftq_config eva_config corda_config use_qalora",
        "A begins at random and B at 0, as in the paper; leave it out",
    ),
    **_each("lora_bias fan_in_fan_out ensure_weight_tying base_model_name_or_path peft_type", "leave it out"),
    **_each("rank lora_rank lora_r", "`r={value!r}`"),
    "alpha": "`lora_alpha={value!r}`",
    "dropout": "`lora_dropout={value!r}`",
    "scale": "the scale is lora_alpha / r: `r=8, lora_alpha=16`",
    "keys": "`target_modules={value!r}`",
    "seed": "`random_state={value!r}`",
    **_each("temporary_location qat_scheme", "leave it out"),
    "max_seq_length": f"rows are cut where they are trained on: {_LENGTH}",
}
RECORD_OF_ADAPTERS: Answers = ADAPTERS | _each(
    "use_gradient_checkpointing gradient_checkpointing", "`TrainingConfig(gradient_checkpointing=True)`"
)
PEFT_MODEL: Answers = ADAPTERS | {
    "gradient_checkpointing": "`use_gradient_checkpointing={value!r}`",
    **_each("peft_config lora_config", "its settings are arguments: `r=16, lora_alpha=16`"),
}

LOADING: Answers = {
    **_each(
        "model_name pretrained_model_name_or_path path_or_hf_repo model_id model repo_id path",
        "`FastModel.from_pretrained({value!r})`",
    ),
    "adapter_path": "a folder of adapters brings its base model: `FastModel.from_pretrained({value!r})`",
    **_each("torch_dtype", "`dtype='bfloat16'`"),
    "load_in_16bit": "`dtype='bfloat16'`",
    **_each("quantization_config bnb_config load_in_fp8", "`load_in_4bit=True`"),
    **_each("device_map device low_cpu_mem_usage max_memory offload_folder lazy", _WRITTEN_BY_MLX),
    **_each("attn_implementation use_flash_attention_2", "attention is MLX's own; leave it out"),
    **_each("use_gradient_checkpointing gradient_checkpointing", _ADAPTERS % ", use_gradient_checkpointing='auto'"),
    **_each("max_length max_position_embeddings", "`max_seq_length={value!r}`"),
    **_each("use_auth_token hf_token", "`token={value!r}`"),
    **_each("seed", "`random_state={value!r}`"),
    **_each(
        "fast_inference gpu_memory_utilization max_lora_rank float8_kv_cache disable_log_stats unsloth_vllm_standby "
        "rope_scaling fix_tokenizer use_exact_model_name use_safetensors use_cache tokenizer_config attn_impl",
        "what it sets is read from the model's folder, or is not here; leave it out",
    ),
    **_each(
        "local_files_only cache_dir force_download subfolder proxies",
        "downloads are Hugging Face's, set by HF_HUB_OFFLINE and HF_HOME; leave it out",
    ),
    **_ADAPTER_SETTINGS,
}

WRITING: Answers = {
    **_each("max_new_tokens max_length", "`max_tokens={value!r}`"),
    "temp": "`temperature={value!r}`",
    "do_sample": "`temperature=0.7` samples, and 0, the default, takes the likeliest token",
    **_each("streamer stream", "`for piece in model.stream(prompt): print(piece, end='')`"),
    **_each(
        "top_k min_p typical_p repetition_penalty num_beams penalty_alpha no_repeat_ngram_size sampler",
        "`temperature=0.7, top_p=0.9` are what there is",
    ),
    **_each(
        "inputs input_ids prompts messages text", "a text or a list of messages comes first: `model.generate(prompt)`"
    ),
    **_each(
        "attention_mask use_cache pad_token_id eos_token_id stop_strings return_dict_in_generate verbose tokenizer",
        "`model.generate(prompt)` reads and ends as the model's tokenizer has it; leave it out",
    ),
    "enable_thinking": "`thinking={value!r}`",
    "chat_template_kwargs": "`thinking=False`, where the template has a switch for thoughts",
    "num_return_sequences": "a call writes one answer: `[model.generate(prompt, temperature=0.7) for _ in range(2)]`",
    **_each("generation_config", "`max_tokens=64, temperature=0.7, top_p=0.9` are what there is"),
}

_SAVING: Answers = {
    **_each("push_to_hub hub_model_id repo_id commit_message private", _TO_THE_HUB),
    **_each(
        "safe_serialization max_shard_size state_dict is_main_process variant token maximum_memory_usage "
        "temporary_location selected_adapters path_initial_components",
        "files are safetensors, written whole or not at all; leave it out",
    ),
}
ADAPTERS_SAVED: Answers = _SAVING | {
    "tokenizer": _TOKENIZER % "model.save_pretrained(folder)",
    **_each("save_directory path", "`model.save_pretrained({value!r})`"),
    "save_method": "this saves the adapters alone: `model.save_pretrained_merged(folder, save_method='merged_16bit')`",
    "quantization_method": "`model.save_pretrained_gguf(folder, quantization_method={value!r})`",
}
MERGED_SAVED: Answers = _SAVING | {
    "tokenizer": _TOKENIZER % "model.save_pretrained_merged(folder)",
    **_each("save_directory path", "`model.save_pretrained_merged({value!r})`"),
    "quantization_method": "`model.save_pretrained_gguf(folder, quantization_method={value!r})`",
    "format": "`model.save_pretrained(folder, format={value!r})` saves the adapters",
}
GGUF_SAVED: Answers = _SAVING | {
    "tokenizer": _TOKENIZER % "model.save_pretrained_gguf(folder)",
    **_each("save_directory path model_name", "`model.save_pretrained_gguf({value!r})`"),
    **_each("quantization quantization_type quant outtype first_conversion", "`quantization_method='q8_0'`"),
    "save_method": "`model.save_pretrained_merged(folder, save_method={value!r})`",
}
HUB: Answers = {
    "tokenizer": "the model brings its own tokenizer, and it is sent with it; leave it out",
    **_each("commit_message create_pr max_shard_size safe_serialization use_temp_dir", "leave it out"),
}

TRAINER: Answers = {
    "processing_class": "`Trainer(model, tokenizer, train_dataset=rows)`",
    **_each("dataset data rows train_rows train_data", "`Trainer(model, tokenizer, train_dataset=rows)`"),
    **_each(
        "eval_rows eval_data test_dataset validation_dataset",
        "`Trainer(model, tokenizer, train_dataset=rows, eval_dataset=held_out_rows)`",
    ),
    **_each("config training_args", "`Trainer(model, tokenizer, train_dataset=rows, args=TrainingConfig())`"),
    "data_collator": "batches are padded and masked already; leave it out",
    "dataset_text_field": _TEXT_COLUMN,
    "dataset_num_proc": _ONE_PROCESS,
    **_each("peft_config lora_config", _ADAPTERS % ""),
    **_each("callbacks callback", "a callback is any function of an event: `trainer.subscribe(print)`"),
    **_each(
        "compute_metrics preprocess_logits_for_metrics",
        "the loss is measured by `trainer.evaluate(rows)`, and answers are made by `model.generate(prompt)`",
    ),
    **_each(
        "optimizers optimizer lr_scheduler",
        "`Trainer(model, tokenizer, train_dataset=rows, args=TrainingConfig(optim='adamw'))`",
    ),
    **_each(
        "max_seq_length packing max_steps learning_rate num_train_epochs",
        "`Trainer(model, tokenizer, train_dataset=rows, args=TrainingConfig({name}={value!r}))`",
    ),
}
MEASURING: Answers = _each(
    "eval_dataset dataset test_dataset", "`trainer.evaluate(rows)` takes rows, a path or a hub id"
) | _each("metric_key_prefix ignore_keys", "leave it out")
RUNNING: Answers = {
    "resume": "`resume_from_checkpoint={value!r}`",
    **_each("trial ignore_keys_for_eval", "leave it out"),
}

NAMES: dict[str, Answers] = {
    "TrainingConfig": TRAINING,
    "LoraConfig": RECORD_OF_ADAPTERS,
    "FastModel.get_peft_model": PEFT_MODEL,
    "FastModel.from_pretrained": LOADING,
    "generate": WRITING,
    "stream": WRITING,
    "save_pretrained": ADAPTERS_SAVED,
    "save_pretrained_merged": MERGED_SAVED,
    "save_pretrained_gguf": GGUF_SAVED,
    "push_to_hub": HUB,
    "push_to_hub_merged": HUB,
    "push_to_hub_gguf": HUB,
    "Trainer": TRAINER,
    "train": RUNNING,
    "evaluate": MEASURING,
}
