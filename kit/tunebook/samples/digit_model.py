"""A vision-language model for images of 16 x 16 pixels, built on the spot: texts go in, a model folder comes out.

It has SmolVLM's architecture, layers and processor (mlx-vlm), and a tokenizer trained on the texts it will meet. Its
weights are random: what it can do, it has to be taught.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
from mlx_vlm.models import smolvlm
from mlx_vlm.models.smolvlm.config import ModelConfig
from mlx_vlm.models.smolvlm.smolvlm import Model
from mlx_vlm.utils import update_module_configs
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ..models.tensors import flat, save_tensors

SIDE, PATCH, JOINED = 16, 4, 2  # pixels, pixels, and how many patches a side become one token
WIDTH = 48
PAD, BOS, EOS, IMAGE = "<|endoftext|>", "<|im_start|>", "<end_of_utterance>", "<image>"
SPECIAL = (PAD, BOS, EOS, "<fake_token_around_image>", "<global-img>", IMAGE)

# As in the released SmolVLM (chat_template.json), without its system turn.
TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}:"
    "{% if message['content'] is string %} {{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %} {{ part['text'] }}{% endif %}{% endfor %}{% endif %}"
    "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)


def write_digit_reader(folder: Path, texts: Sequence[str], seed: int) -> Path:
    """Write the model to `folder` with a tokenizer that has a token for every word of `texts`."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = _write_tokenizer(folder, texts)
    _write_processor(folder)
    config = _config(vocabulary)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    settings = update_module_configs(ModelConfig.from_dict(dict(config)), smolvlm, dict(config), ["text", "vision"])
    mx.random.seed(seed)
    save_tensors(folder / "model.safetensors", flat(Model(settings).parameters()))
    return folder


def _config(vocabulary: dict[str, int]) -> dict[str, Any]:
    shape = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_attention_heads": 4}
    return {
        "model_type": "smolvlm",
        "text_config": {
            "model_type": "llama",
            **shape,
            "num_hidden_layers": 1,
            "num_key_value_heads": 2,
            "rms_norm_eps": 1e-6,
            "rope_theta": 1e4,
            "max_position_embeddings": 512,
            "vocab_size": len(vocabulary),
        },
        "vision_config": {
            "model_type": "smolvlm_vision",
            **shape,
            "num_hidden_layers": 2,
            "patch_size": PATCH,
            "image_size": SIDE,
            "num_channels": 3,
        },
        "scale_factor": JOINED,
        "image_token_id": vocabulary[IMAGE],
        "eos_token_id": vocabulary[EOS],
        "pad_token_id": vocabulary[PAD],
    }


def _write_processor(folder: Path) -> None:
    images = {
        "image_processor_type": "SmolVLMImageProcessor",
        "processor_class": "SmolVLMProcessor",
        "size": {"longest_edge": SIDE},
        "max_image_size": {"longest_edge": SIDE},
        "do_image_splitting": False,
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(images, indent=2) + "\n")
    processor = {"image_seq_len": (SIDE // PATCH // JOINED) ** 2, "processor_class": "SmolVLMProcessor"}
    (folder / "processor_config.json").write_text(json.dumps(processor, indent=2) + "\n")


def _write_tokenizer(folder: Path, texts: Sequence[str]) -> dict[str, int]:
    """Train a byte-level BPE on `texts`, write it, and return every token's id."""
    tokenizer = Tokenizer(models.BPE())
    # tokenizers 0.23 declares these as read-only.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    corpus = [f" {text}" for text in texts] + ["User:", "Assistant:"]
    tokenizer.train_from_iterator([*corpus, *corpus], trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": BOS,
        "eos_token": EOS,
        "pad_token": PAD,
        "additional_special_tokens": list(SPECIAL),
        "padding_side": "right",
        "model_max_length": 512,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    (folder / "chat_template.jinja").write_text(TEMPLATE)
    return tokenizer.get_vocab()
