"""The names of Unsloth, and of TRL and transformers beside it, for notebooks that were written for them.

    from tunebook.compat.unsloth import FastLanguageModel, SFTConfig, SFTTrainer

in the place of the imports from `unsloth`, `trl` and `transformers`. Models, trainers and results are this kit's, so
that `Dashboard(trainer)`, `trainer.start()`, exams and verified exports work with them. Every argument is followed,
told of once where nothing depends on it, or refused with what to write.
"""

from typing import Any

from ...machine.without_torch import torch_unseen

with torch_unseen():  # whoever imports from here has not imported the kit's own names before
    from .arguments import DPOConfig, KTOConfig, ORPOConfig, SFTConfig, TrainingArguments
    from .chat_templates import get_chat_template, standardize_sharegpt, train_on_responses_only
    from .collators import DataCollatorForLanguageModeling, DataCollatorForSeq2Seq, UnslothVisionDataCollator
    from .loading import FastLanguageModel, FastModel, FastVisionModel
    from .streamer import TextStreamer
    from .trainers import DPOTrainer, KTOTrainer, ORPOTrainer, SFTTrainer

standardize_data_formats = standardize_sharegpt
UnslothTrainer, UnslothTrainingArguments = SFTTrainer, TrainingArguments

__all__ = [
    "DPOConfig",
    "DPOTrainer",
    "DataCollatorForLanguageModeling",
    "DataCollatorForSeq2Seq",
    "FastLanguageModel",
    "FastModel",
    "FastVisionModel",
    "KTOConfig",
    "KTOTrainer",
    "ORPOConfig",
    "ORPOTrainer",
    "PatchDPOTrainer",
    "SFTConfig",
    "SFTTrainer",
    "TextStreamer",
    "TrainingArguments",
    "UnslothTrainer",
    "UnslothTrainingArguments",
    "UnslothVisionDataCollator",
    "get_chat_template",
    "is_bf16_supported",
    "is_bfloat16_supported",
    "standardize_data_formats",
    "standardize_sharegpt",
    "train_on_responses_only",
]

# What else notebooks import, and what to do in its place.
_NOT_HERE = {
    **dict.fromkeys(
        ("GRPOTrainer", "GRPOConfig", "vLLMSamplingParams", "RewardTrainer", "PPOTrainer", "CPOTrainer", "CPOConfig"),
        "SFT, DPO, ORPO and KTO have these names; tunebook.objectives has CPO, SimPO and AlphaPO too, for a "
        "tunebook.Trainer",
    ),
    **dict.fromkeys(
        ("to_sharegpt", "apply_chat_template"),
        "write the rows as messages, [{'role': 'user', 'content': ...}, ...]; the trainer applies the chat template",
    ),
    **dict.fromkeys(("FastSentenceTransformer", "FastTextModel", "FastDecisionModel"), "models here write text"),
    **dict.fromkeys(
        ("AutoTokenizer", "AutoModelForCausalLM", "AutoPeftModelForCausalLM", "PeftModel"),
        "FastLanguageModel.from_pretrained(...) gives model and tokenizer, of a base or of saved adapters",
    ),
    **dict.fromkeys(
        ("LoraConfig", "BitsAndBytesConfig"),
        "FastLanguageModel.get_peft_model(model, r=16, ...) makes adapters, from_pretrained(load_in_4bit=True) 4 bits",
    ),
    **dict.fromkeys(
        ("TrainerCallback", "EarlyStoppingCallback"),
        "trainer.subscribe(fn) gets every event; tunebook.TrainingConfig(early_stopping_patience=3) stops early",
    ),
    **dict.fromkeys(
        ("TextIteratorStreamer", "GenerationConfig"),
        "TextStreamer shows an answer as it is written, and tunebook.FastModel has stream(...) for a loop",
    ),
    "DataCollatorForCompletionOnlyLM": "write trainer = train_on_responses_only(trainer, instruction_part=..., "
    "response_part=...)",
    "unsloth_train": "write trainer.train()",
    "set_seed": "the seed is a setting, seed=3407",
    "get_gpu_memory_stats": "what a run takes is said beforehand by trainer.memory()",
}


def is_bfloat16_supported() -> bool:
    """True: MLX computes in bfloat16 on every machine. The type of the weights is chosen where they are loaded.

    >>> is_bfloat16_supported()
    True
    """
    return True


is_bf16_supported = is_bfloat16_supported


def PatchDPOTrainer() -> None:
    """Do nothing: there is nothing to patch.

    >>> PatchDPOTrainer()
    """


def __getattr__(name: str) -> Any:
    if name in _NOT_HERE:
        raise ImportError(f"tunebook.compat.unsloth has no {name}: {_NOT_HERE[name]}.")
    raise AttributeError(f"module 'tunebook.compat.unsloth' has no attribute {name!r}; it offers {', '.join(__all__)}.")
