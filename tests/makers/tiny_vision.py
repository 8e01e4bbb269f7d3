"""Tiny vision-language models for the tests: a folder goes in, what `mlx_vlm.load` opens comes out.

Six families with their own processors, random fp32 weights of about 50,000 parameters, made in a fraction of a second
without a network. Everything is seeded.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlx_vlm.utils import get_model_and_args, update_module_configs
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from tests.makers.tiny import CORPUS

FAMILIES = ("qwen2_vl", "qwen2_5_vl", "qwen3_vl", "gemma3", "smolvlm", "idefics3")

# Content as a string, or as parts of which `image` stands for an image.
_CONTENT = (
    "{{% if message.content is string %}}{{{{ message.content }}}}{{% else %}}{{% for part in message.content %}}"
    "{{% if part.type == 'image' %}}{image}{{% else %}}{{{{ part.text }}}}{{% endif %}}{{% endfor %}}{{% endif %}}"
)
QWEN_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    + _CONTENT.format(image="<|vision_start|><|image_pad|><|vision_end|>")
    + "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
GEMMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>"
    "{{ 'model' if message.role == 'assistant' else message.role }}\n"
    + _CONTENT.format(image="<start_of_image>")
    + "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
SMOL_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{ message.role }}: "
    + _CONTENT.format(image="<image>")
    + "<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
)

_NORMALIZED = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def tiny_vision_folder(folder: Path | str, family: str, *, width: int = 32, seed: int = 0, **changes: Any) -> Path:
    """Write a random model of `family` with its processor to `folder`.

    Its states are `width` numbers, 32 or 64, of which 64 can be quantized; `changes` are entries of config.json.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write = {"gemma3": _gemma3, "smolvlm": _idefics, "idefics3": _idefics}.get(family, _qwen)
    config = write(folder, family, width) | changes
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    weights = _random_weights(config, seed)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "mlx"})
    return folder


def noise_images(count: int, *, size: tuple[int, int] = (40, 40)) -> list[Image.Image]:
    """Images of noise, each another; `size` is (width, height) in pixels."""
    width, height = size
    return [
        Image.fromarray(np.random.default_rng(seed).integers(0, 255, (height, width, 3), dtype=np.uint8))
        for seed in range(count)
    ]


def asked(text: str, images: Sequence[Any], answer: str) -> dict[str, Any]:
    """A row of one question, its images before its text, and the answer."""
    parts = [{"type": "image", "image": image} for image in images]
    return {
        "messages": [
            {"role": "user", "content": [*parts, {"type": "text", "text": text}]},
            {"role": "assistant", "content": answer},
        ]
    }


def _qwen(folder: Path, family: str, width: int) -> dict[str, Any]:
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
    special = (*special, "<|image_pad|>", "<|video_pad|>")
    ids = _tokenizer(folder, special, pad="<|endoftext|>", eos="<|im_end|>", template=QWEN_TEMPLATE)
    patch = 16 if family == "qwen3_vl" else 14
    image_processor = {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
        "patch_size": patch,
        "temporal_patch_size": 2,
        "merge_size": 2,
        "min_pixels": (2 * patch) ** 2,
        "max_pixels": (4 * patch) ** 2,
        **_NORMALIZED,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(image_processor))
    text = {
        "model_type": "qwen3_vl_text" if family == "qwen3_vl" else family,
        **_text_sizes(len(ids), width),
        "rope_theta": 1e6,
        "rope_scaling": {"type": "mrope", "mrope_section": [width // 16, width // 32, width // 32]},
        "tie_word_embeddings": True,
    }
    vision = {
        "model_type": family,
        "depth": 2,
        "embed_dim": 32,
        "hidden_size": width if family == "qwen2_vl" else 32,  # there the width the tower puts out
        "out_hidden_size": width,
        "intermediate_size": 64,
        "mlp_ratio": 2,
        "num_heads": 2,
        "patch_size": patch,
        "spatial_patch_size": patch,
        "spatial_merge_size": 2,
        "temporal_patch_size": 2,
        "in_channels": 3,
        "window_size": 4 * patch,
        "fullatt_block_indexes": [1],
    }
    if family == "qwen3_vl":
        text |= {"head_dim": width // 4}
        vision |= {"num_position_embeddings": 64, "deepstack_visual_indexes": [0]}
    return {
        **text,
        "model_type": family,
        "text_config": text,
        "vision_config": vision,
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "eos_token_id": ids["<|im_end|>"],
        "pad_token_id": ids["<|endoftext|>"],
    }


def _gemma3(folder: Path, family: str, width: int) -> dict[str, Any]:
    named = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}
    special = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>", *named.values())
    ids = _tokenizer(folder, special, pad="<pad>", eos="<eos>", bos="<bos>", named=named, template=GEMMA_TEMPLATE)
    image_processor = {
        "image_processor_type": "Gemma3ImageProcessor",
        "processor_class": "Gemma3Processor",
        "size": {"height": 28, "width": 28},
        "do_pan_and_scan": False,
        **_NORMALIZED,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(image_processor))
    (folder / "processor_config.json").write_text(
        json.dumps({"image_seq_length": 4, "processor_class": "Gemma3Processor"})
    )
    text = {
        "model_type": "gemma3_text",
        **_text_sizes(len(ids), width),
        "head_dim": width // 4,
        "sliding_window": 24,
        "sliding_window_pattern": 2,
        "mm_tokens_per_image": 4,
        "query_pre_attn_scalar": width // 4,
    }
    return {
        "model_type": family,
        "hidden_size": text["hidden_size"],
        "vocab_size": len(ids),
        "text_config": text,
        "vision_config": {"model_type": "siglip_vision_model", **_TOWER},
        "image_token_index": ids["<image_soft_token>"],
        "boi_token_index": ids["<start_of_image>"],
        "eoi_token_index": ids["<end_of_image>"],
        "mm_tokens_per_image": 4,
        "eos_token_id": [ids["<eos>"], ids["<end_of_turn>"]],
        "pad_token_id": ids["<pad>"],
    }


def _idefics(folder: Path, family: str, width: int) -> dict[str, Any]:
    special = ("<|endoftext|>", "<|im_start|>", "<end_of_utterance>", "<fake_token_around_image>", "<global-img>")
    special = (*special, "<image>", *(f"<row_{row}_col_{col}>" for row in (1, 2) for col in (1, 2)))
    ids = _tokenizer(
        folder, special, pad="<|endoftext|>", eos="<end_of_utterance>", bos="<|im_start|>", template=SMOL_TEMPLATE
    )
    name = "SmolVLM" if family == "smolvlm" else "Idefics3"
    image_processor = {
        "image_processor_type": f"{name}ImageProcessor",
        "processor_class": f"{name}Processor",
        "size": {"longest_edge": 28},
        "max_image_size": {"longest_edge": 28},
        "do_image_splitting": False,
        **_NORMALIZED,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(image_processor))
    (folder / "processor_config.json").write_text(
        json.dumps({"image_seq_len": 4, "processor_class": f"{name}Processor"})
    )
    return {
        "model_type": family,
        "text_config": {"model_type": "llama", **_text_sizes(len(ids), width), "rope_theta": 1e4},
        "vision_config": {"model_type": "idefics3" if family == "idefics3" else "smolvlm_vision", **_TOWER},
        "image_token_id": ids["<image>"],
        "scale_factor": 2,
        "eos_token_id": ids["<end_of_utterance>"],
        "pad_token_id": ids["<|endoftext|>"],
    }


_TOWER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "patch_size": 7,
    "image_size": 28,
    "num_channels": 3,
}


def _text_sizes(vocabulary: int, width: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-6,
        "vocab_size": vocabulary,
        "max_position_embeddings": 4096,
    }


def _tokenizer(
    folder: Path,
    special: Sequence[str],
    *,
    pad: str,
    eos: str,
    template: str,
    bos: str | None = None,
    named: dict[str, str] | None = None,
) -> dict[str, int]:
    """Train a byte-level BPE, write it with its chat template to `folder`, and return every token's id."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(special),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": pad,
        "eos_token": eos,
        "bos_token": bos,
        "model_max_length": 4096,
        "padding_side": "right",
        "clean_up_tokenization_spaces": False,
        "additional_special_tokens": list(special),
        **({"extra_special_tokens": named, **named} if named else {}),
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1))
    (folder / "chat_template.jinja").write_text(template)
    return tokenizer.get_vocab()


def _random_weights(config: dict[str, Any], seed: int) -> dict[str, mx.array]:
    config = {**json.loads(json.dumps(config)), "audio_config": {}}
    kind, _ = get_model_and_args(config)
    settings = update_module_configs(
        kind.ModelConfig.from_dict(config), kind, config, ["text", "vision", "perceiver", "projector", "audio"]
    )
    mx.random.seed(seed)
    module = kind.Model(settings)
    if config["model_type"] == "gemma3":
        # mlx-vlm begins it as ones; a normalized state times ones is 0, and the image would not be seen.
        projector = module["multi_modal_projector"]
        shape = projector["mm_input_projection_weight"].shape
        projector["mm_input_projection_weight"] = 0.3 * mx.random.normal(shape)
    return dict(tree_flatten(module.parameters()))
