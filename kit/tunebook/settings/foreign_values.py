"""Values that people know from other kits for settings that are here too, and what to write in their place.

As in `foreign_names.py`; an answer comes behind "TrainingConfig.optim is 'adamw_8bit': ".
"""

from collections.abc import Mapping

Answers = dict[int | str, str]

# For a model that is still what from_pretrained returned.
A_PAIR = "from_pretrained gives two things: write `model, tokenizer = FastModel.from_pretrained(name)`"


def _each(values: str, answer: str) -> Answers:
    return {**dict.fromkeys(values.split(), answer)}


_ADAPTER_VALUES: Mapping[str, Answers] = {
    "target_modules": _each("all linear", "`target_modules='all-linear'`"),
    "modules_to_save": {False: "`modules_to_save=None`"},
    "finetune_last_n_layers": {
        -1: "`finetune_last_n_layers=None`",
        "all": "`finetune_last_n_layers=None`",
    },
}
_METHODS = _each("lora adapters", "`model.save_pretrained(folder)`") | {
    **_each("16bit float16 bfloat16 merged_fp16 merged", "`save_method='merged_16bit'`"),
    **_each("4bit merged_4bit_forced mlx_4bit", "`save_method='merged_4bit'`"),
    "8bit": "`save_method='merged_8bit'`",
}
_KINDS = {
    **_each("not_quantized float16", "`quantization_method='f16'`"),
    "bfloat16": "`quantization_method='bf16'`",
    "float32": "`quantization_method='f32'`",
    **_each("fast_quantized int8 8bit", "`quantization_method='q8_0'`"),
    **_each("quantized 4bit", "`quantization_method='q4_k_m'`"),
}

VALUES: Mapping[str, Mapping[str, Answers]] = {
    "TrainingConfig": {
        "optim": {
            **_each(
                "adamw_8bit adamw_bnb_8bit paged_adamw_8bit paged_adamw_32bit adamw_torch_8bit adamw_torch_4bit",
                "write `optim='adamw'`, whose state is small where adapters are trained",
            ),
            **_each("adamw_torch adamw_torch_fused adamw_hf adamw_apex_fused AdamW", "`optim='adamw'`"),
            **_each("lion_8bit lion_32bit paged_lion_8bit paged_lion_32bit", "`optim='lion'`"),
            **_each("adamw_anyprecision rmsprop adagrad stable_adamw", "it is not here; `optim='adamw'` is nearest"),
        },
        "lr_scheduler_type": {
            "cosine_with_min_lr": "`lr_scheduler_type='cosine', min_lr_rate=0.1`",
            "cosine_decay": "`lr_scheduler_type='cosine'`",
            "linear_schedule": "`lr_scheduler_type='linear'`",
            "reduce_lr_on_plateau": "none here follows the loss; `lr_scheduler_type='constant'` is nearest",
            "cosine_warmup_with_min_lr": "`lr_scheduler_type='cosine', min_lr_rate=0.1`",
            "greedy": "it is not here; `lr_scheduler_type='constant'` is nearest",
            **_each("wsd trapezoidal", "`lr_scheduler_type='warmup_stable_decay'`"),
        },
        "max_steps": {-1: "leave it out, or write `max_steps=None`"},
        "num_train_epochs": {-1: "leave it out, or write `num_train_epochs=None`"},
        "dataset_order": _each("random shuffled", "`dataset_order='shuffle'`"),
        "train_on": _each("all full", "`train_on='everything'`")
        | _each("completion completions responses assistants", "`train_on='assistant'`"),
        "gradient_checkpointing": _each("unsloth mlx", "`gradient_checkpointing=True`"),
        "packing": _each("bfd wrapped", "`packing=True`"),
        "save_steps": {"no": "`save_steps=None`", "steps": "`save_steps=100`"},
        "metric_for_best_model": _each("loss eval_loss", "`metric_for_best_model=None`")
        | {"eval_exact_match": "`metric_for_best_model='exact_match'`"},
        "eval_steps": {"no": "`eval_steps=None`", "steps": "`eval_steps=100`"},
    },
    "LoraConfig": _ADAPTER_VALUES,
    "FastModel.get_peft_model": {
        **_ADAPTER_VALUES,
        "use_gradient_checkpointing": _each("mlx", "`use_gradient_checkpointing='auto'`"),
    },
    "FastModel.from_pretrained": {
        "dtype": _each("bf16 torch.bfloat16", "`dtype='bfloat16'`")
        | _each("fp16 half torch.float16", "`dtype='float16'`")
        | _each("fp32 float torch.float32", "`dtype='float32'`")
        | {"auto": "`dtype=None`"},
    },
    "save_pretrained": {
        "format": _each("merged merged_16bit", "`model.save_pretrained_merged(folder)`")
        | _each("lora mlx-lm safetensors", "`format='mlx'`")
        | {"hf": "`format='peft'`"},
    },
    "save_pretrained_merged": {"save_method": _METHODS},
    "push_to_hub_merged": {"save_method": _METHODS},
    "save_pretrained_gguf": {"quantization_method": _KINDS},
    "push_to_hub_gguf": {"quantization_method": _KINDS},
}
