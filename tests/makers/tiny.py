"""Tiny models and tokenizers for the tests: a folder goes in, what `mlx_lm.load` and `transformers` open comes out.

Everything is seeded, fp32 and made in well under a second. The weights are random, so a tiny model can show that two
routes through the code agree or that a loss falls, never that a sentence makes sense.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.utils import load_model
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

Style = Literal["smollm", "gpt2", "qwen2", "llama3", "tekken", "gpt-4o"]

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

CORPUS = (
    "the quick brown fox jumps over the lazy dog and then the dog sleeps in the sun.",
    "What is the capital of France? The capital of France is Paris, and it's lovely there in 2024.",
    "user system assistant: You are a helpful assistant. Answer the question, then stop.",
    "She'll say they've won; I'm sure we'd have lost 3 to 17 without the goalkeeper's two saves!",
    "def add(first, second):\n    return first + second\n\nprint(add(12, 345))\n\t# done\n",
    "Der Fluß fließt über schöne Städte; où est l'été? El niño comió piñas. Ελληνικά, Русский язык, 日本語の文章。",
    "tunes and tones, tuning and turning, a tune for the learner who learns a tune at noon in June",
)

# As in the released tokenizer.json of Qwen2 and of Llama 3, which differ only in how many digits stay together.
_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

# As in the released tokenizer.json of Mistral Nemo (tekken) and of gpt-oss.
_WORDS_BY_CASE = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+%(ending)s"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*%(ending)s"
    r"|\p{N}%(digits)s| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_SPLITS = {
    "qwen2": _WORDS % "",
    "llama3": _WORDS % "{1,3}",
    "tekken": _WORDS_BY_CASE % {"ending": "", "digits": ""},
    "gpt-4o": _WORDS_BY_CASE % {"ending": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "digits": "{1,3}"},
}

_COMMON = {
    "vocab_size": None,  # the tokenizer's
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 512,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
}

ARCHITECTURES = {
    "llama": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "mlp_bias": False,
        "hidden_act": "silu",
    },
    "qwen2": {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "rms_norm_eps": 1e-6, "hidden_act": "silu"},
    # A head wider than hidden_size / heads, as in the released Qwen3 models.
    "qwen3": {
        "model_type": "qwen3",
        "architectures": ["Qwen3ForCausalLM"],
        "attention_bias": False,
        "rms_norm_eps": 1e-6,
        "head_dim": 32,
        "hidden_act": "silu",
    },
    "qwen3_moe": {
        "model_type": "qwen3_moe",
        "architectures": ["Qwen3MoeForCausalLM"],
        "attention_bias": False,
        "rms_norm_eps": 1e-6,
        "hidden_act": "silu",
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 96,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "norm_topk_prob": True,
    },
    "gemma2": {
        "model_type": "gemma2",
        "architectures": ["Gemma2ForCausalLM"],
        "attention_bias": False,
        "rms_norm_eps": 1e-6,
        "query_pre_attn_scalar": 16,
        "attn_logit_softcapping": 50.0,
        "final_logit_softcapping": 30.0,
        "sliding_window": 256,
        "hidden_activation": "gelu_pytorch_tanh",
    },
    "gemma3": {
        "model_type": "gemma3_text",
        "architectures": ["Gemma3ForCausalLM"],
        "attention_bias": False,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0,
        "query_pre_attn_scalar": 16,
        "num_hidden_layers": 6,  # one full period: five sliding layers, one global
        "sliding_window": 16,
        "sliding_window_pattern": 6,
        "hidden_activation": "gelu_pytorch_tanh",
    },
    "smollm3": {
        "model_type": "smollm3",
        "architectures": ["SmolLM3ForCausalLM"],
        "attention_bias": False,
        "hidden_act": "silu",
        "num_hidden_layers": 4,  # every fourth layer has no rotary embedding
        "no_rope_layer_interval": 4,
        "no_rope_layers": [1, 1, 1, 0],
    },
    "phi3": {"model_type": "phi3", "architectures": ["Phi3ForCausalLM"], "attention_bias": False, "hidden_act": "silu"},
}


def tiny_tokenizer(
    folder: Path | str,
    *,
    chat_template: str | None = CHAT_TEMPLATE,
    style: Style = "smollm",
    vocab_size: int = 512,
    corpus: Sequence[str] = CORPUS,
) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer on `corpus`, save it to `folder` and return it.

    `style` says whose way of cutting text into words it has; `llama3` also begins every text with `<|im_start|>`. The
    end of a turn is `<|im_end|>`, the padding `<|endoftext|>`.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = _pre_tokenizer(style)  # pyright: ignore[reportAttributeAccessIssue]
    if style == "qwen2":
        tokenizer.normalizer = normalizers.NFC()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.train_from_iterator(
        corpus,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL_TOKENS),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.model.ignore_merges = style in ("llama3", "tekken")
    if style == "llama3":
        tokenizer.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
            single="<|im_start|> $A",
            pair="<|im_start|> $A <|im_start|>:1 $B:1",
            special_tokens=[("<|im_start|>", SPECIAL_TOKENS.index("<|im_start|>"))],
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        unk_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        clean_up_tokenization_spaces=False,
        model_max_length=512,
    )
    fast.chat_template = chat_template
    fast.save_pretrained(folder)
    return fast


def tiny_config(architecture: str, **overrides) -> dict:
    """The config.json of a tiny model, but for what its tokenizer decides."""
    return {**_COMMON, **ARCHITECTURES[architecture], **overrides}


def tiny_model_folder(
    folder: Path | str,
    architecture: str = "llama",
    *,
    seed: int = 0,
    chat_template: str | None = CHAT_TEMPLATE,
    style: Style | None = None,
    **overrides,
) -> Path:
    """Write a random fp32 model of `architecture` with its tokenizer to `folder`, and return the folder.

    `style` is the tokenizer's; by default the Qwen models have theirs and the others SmolLM2's. `overrides` are entries
    of config.json, such as `num_hidden_layers=4` or `tie_word_embeddings=False`.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    # transformers gives every qwen2 model Qwen's splitting, whatever its tokenizer.json says.
    own_style: Style = "qwen2" if architecture.startswith("qwen") else "smollm"
    tokenizer = tiny_tokenizer(folder, chat_template=chat_template, style=style or own_style)
    config = {
        **tiny_config(architecture),
        "vocab_size": len(tokenizer),
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **overrides,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    # With no weights on disk and strict=False, mlx-lm builds the bare model: its parameters' names and shapes.
    bare, _ = load_model(folder, lazy=True, strict=False)
    parameters = dict(tree_flatten(bare.parameters()))
    keys = mx.random.split(mx.random.key(seed), len(parameters))
    weights = {
        name: _random(name, array.shape, key, zero_centred_norms=architecture.startswith("gemma"))
        for (name, array), key in zip(parameters.items(), keys, strict=True)
    }
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    return folder


def _pre_tokenizer(style: Style) -> pre_tokenizers.PreTokenizer:
    if style in _SPLITS:
        words = Regex(_SPLITS[style])
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return pre_tokenizers.Sequence([pre_tokenizers.Split(words, behavior="isolated"), byte_level])
    digits = [pre_tokenizers.Digits(individual_digits=True)] if style == "smollm" else []
    return pre_tokenizers.Sequence([*digits, pre_tokenizers.ByteLevel(add_prefix_space=False)])


def _random(name: str, shape: tuple[int, ...], key: mx.array, *, zero_centred_norms: bool) -> mx.array:
    """Matrices of unit gain, norms near their neutral value but never at it, biases of about 0.1."""
    noise = mx.random.normal(shape, key=key)
    if len(shape) > 1:
        return noise / math.sqrt(shape[-1])
    is_plain_norm = "norm" in name and not zero_centred_norms
    return 0.1 * noise + (1.0 if is_plain_norm else 0.0)
