"""Documents of random tokens, their loss and gradients alone and packed, and models that packing is not for."""

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_map_with_path

from tests.makers.arrays import in_numpy
from tests.makers.tiny import tiny_model_folder
from tunebook import FastModel
from tunebook.data.encoded import Encoded
from tunebook.models.tensors import flat
from tunebook.objectives.next_token import supervised_positions
from tunebook.tokens.packing import documents, pack

ROW = 64  # tokens
LENGTHS = (7, 25, 18, 40, 3, 12, 33, 50)  # some longer than gemma3's sliding window of 16

# Scales its logits, so that trunk and head are not apart, and mixes sliding attention with another.
COHERE2 = {"model_type": "cohere2", "num_hidden_layers": 4, "sliding_window": 16, "sliding_window_pattern": 2}
CARRY_STATE = {
    "lfm2": {
        "norm_eps": 1e-5,
        "conv_bias": False,
        "conv_L_cache": 3,
        "block_dim": 64,
        "block_multiple_of": 32,
        "block_ffn_dim_multiplier": 1.0,
        "block_auto_adjust_ff_dim": False,
        "full_attn_idxs": [1],
    },
    "mamba": {"state_size": 8, "conv_kernel": 4, "use_bias": False, "use_conv_bias": True, "time_step_rank": 4},
    "qwen3_5": {
        "text_config": {
            "model_type": "qwen3_5_text",
            "vocab_size": 512,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 512,
            "linear_num_value_heads": 4,
            "linear_num_key_heads": 2,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "linear_conv_kernel_dim": 4,
            "full_attention_interval": 2,
        }
    },
}
GPT2 = {"n_ctx": 512, "n_embd": 64, "n_head": 4, "n_layer": 2, "n_positions": 512, "layer_norm_epsilon": 1e-5}
# Scales its queries by their position in the row, from the 128th on.
MINISTRAL3 = {
    "rope_parameters": {
        "rope_type": "default",
        "rope_theta": 1e4,
        "llama_4_scaling_beta": 0.5,
        "original_max_position_embeddings": 128,
    }
}


def rows_of(lengths, seed=0):
    """Documents of random tokens, about two in three of them supervised."""
    random = np.random.default_rng(seed)
    return [
        Encoded(tokens=random.integers(1, 200, size, dtype=np.int32), loss_mask=random.random(size) < 0.67, cut=1)
        for size in lengths
    ]


def opened(folder, architecture="llama", *, load_in_4bit=False, adapters=True, **overrides):
    """A tiny model in training mode, with adapters that are not zero."""
    folder = tiny_model_folder(folder / "model", architecture, **overrides)
    model, _ = FastModel.from_pretrained(folder, load_in_4bit=load_in_4bit, full_finetuning=not adapters)
    if adapters:
        FastModel.get_peft_model(model, r=4, lora_alpha=8)
        mx.random.seed(1)
        model.module.update(
            tree_map_with_path(
                lambda path, array: mx.random.normal(array.shape) * 0.1 if path.endswith("lora_b") else array,
                model.module.trainable_parameters(),
            )
        )
    model.module.train()
    return model


def plain_nats(module, rows):
    """Every row by itself; nothing is packed, padded or left out of the logits."""
    total = mx.array(0.0)
    for row in rows:
        logits = module(mx.array(row.tokens)[None, :-1])[0]
        nats = nn.losses.cross_entropy(logits.astype(mx.float32), mx.array(row.tokens[1:]))
        total += (nats * mx.array(row.loss_mask[1:])).sum()
    return total


def means(module, loss, *inputs):
    """(loss, gradients by name), per supervised token of `rows_of(LENGTHS)`."""
    tokens = sum(row.supervised_tokens for row in rows_of(LENGTHS))
    nats, gradients = nn.value_and_grad(module, loss)(module, *inputs)
    mx.eval(nats, gradients)
    return nats.item() / tokens, {name: in_numpy(array) / tokens for name, array in flat(gradients).items()}


def packed_batch(model):
    """The documents in three rows of unequal length, one of which is a document alone."""
    lone, *others = rows_of(LENGTHS)
    packed = [*pack(others, ROW * 2, seed=0), lone]
    assert sorted(documents(row) for row in packed) == [1, 3, 4]
    batch = model.family.collate(packed, ROW * 2)
    return batch, supervised_positions(batch)


def agree(found, wanted):
    (loss, gradients), (true_loss, true_gradients) = found, wanted
    assert gradients.keys() == true_gradients.keys()
    return abs(loss - true_loss) < 1e-5 and all(
        np.allclose(gradients[name], true_gradients[name], rtol=0, atol=1e-5) for name in gradients
    )
