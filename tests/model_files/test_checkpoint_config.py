"""Every kind of checkpoint has transformers' own logits here, as its version 5 saves it and as it was saved before.

What would be another model here is refused by name. The weights are tiny and random, the tokens too; the judge is
transformers under torch.
"""

import json
import shutil
from pathlib import Path
from typing import cast

import mlx.core as mx
import numpy as np
import pytest

from tests.makers.tiny import ARCHITECTURES, tiny_model_folder
from tunebook import FastModel
from tunebook.model_files.checkpoint_config import translated
from tunebook.model_files.unsupported_settings import UnreadableConfig

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TOKENS = np.random.default_rng(0).integers(5, 300, (1, 150))
CLOSE = 2e-3  # logits of about 1; rounding in float32, and tanh approximated
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
LONG = {
    "type": "longrope",
    "short_factor": [1.0 + 0.1 * n for n in range(8)],
    "long_factor": [2.0 + n for n in range(8)],
}

# What a checkpoint says -> (kind of model, entries of config.json as they were before version 5).
READ = {
    **{f"{kind} theta": (kind, {"rope_theta": 250_000.0}) for kind in ARCHITECTURES},
    **{f"{kind} untied": (kind, {"tie_word_embeddings": False}) for kind in ("llama", "qwen3", "phi3", "smollm3")},
    "mistral theta": ("mistral", {"rope_theta": 1_000_000.0, "sliding_window": None}),
    "llama llama3": ("llama", {"rope_scaling": {**LLAMA3, "original_max_position_embeddings": 64}}),
    "llama linear": ("llama", {"rope_scaling": {"type": "linear", "factor": 4.0}}),
    "llama dynamic": ("llama", {"rope_scaling": {"type": "dynamic", "factor": 4.0}, "max_position_embeddings": 64}),
    "qwen2 yarn": ("qwen2", {"rope_scaling": YARN, "max_position_embeddings": 256}),
    "qwen3 yarn, theta": ("qwen3", {"rope_scaling": YARN, "rope_theta": 50_000.0, "max_position_embeddings": 256}),
    "llama biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "gemma3 linear": ("gemma3", {"rope_scaling": {"rope_type": "linear", "factor": 8.0}, "rope_theta": 500_000.0}),
    "gemma3 local theta": ("gemma3", {"rope_local_base_freq": 20_000.0}),
    "gemma3 pattern": ("gemma3", {"sliding_window_pattern": 3}),
    "smollm3 no positions": ("smollm3", {"no_rope_layers": [0, 1, 1, 0], "rope_theta": 5e6}),
    "phi3 partial": ("phi3", {"partial_rotary_factor": 0.5}),
    "phi3 longrope": ("phi3", {"rope_scaling": LONG, "original_max_position_embeddings": 256}),
    "gemma2 window": ("gemma2", {"sliding_window": 24}),
    "mistral window": ("mistral", {"sliding_window": 24}),
    "qwen2 window": ("qwen2", {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1}),
    "phi3 window": ("phi3", {"sliding_window": 24}),
}


@pytest.fixture(scope="module", autouse=True)
def mistral():
    """A Llama by another name."""
    ARCHITECTURES["mistral"] = {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "hidden_act": "silu"}
    yield
    del ARCHITECTURES["mistral"]


def twins(root: Path, kind: str, **entries):
    """(folder with the entries as given, the same as transformers saves it, its logits of TOKENS)."""
    folder, saved = tiny_model_folder(root / "given", kind, **entries), root / "saved"
    if kind == "qwen3_moe":
        _as_transformers_names_experts(folder)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    with torch.no_grad():
        logits = theirs(torch.tensor(TOKENS)).logits.numpy()
    theirs.save_pretrained(saved)
    for file in [*folder.glob("token*"), *folder.glob("*.jinja")]:
        shutil.copyfile(file, saved / file.name)
    return folder, saved, logits


def _as_transformers_names_experts(folder: Path) -> None:
    stored = cast("dict[str, mx.array]", mx.load(str(folder / "model.safetensors")))
    named = {}
    for name, array in stored.items():
        head, joined, leaf = name.partition("switch_mlp.")
        if joined:
            named |= {f"{head}experts.{expert}.{leaf}": array[expert] for expert in range(array.shape[0])}
        else:
            named[name] = array
    mx.save_safetensors(str(folder / "model.safetensors"), named, metadata={"format": "pt"})


def ours(folder: Path, **options) -> np.ndarray:
    model, _ = FastModel.from_pretrained(folder, **{"max_seq_length": 200, **options})
    return np.array(model.module(mx.array(TOKENS)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", READ)
def test_the_logits_are_those_of_transformers_however_the_checkpoint_was_saved(tmp_path, name):
    kind, entries = READ[name]
    folder, saved, logits = twins(tmp_path, kind, **entries)
    assert np.abs(ours(folder) - logits).max() < CLOSE
    assert np.abs(ours(saved) - logits).max() < CLOSE


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        *(("qwen3_moe", changes) for changes in ({}, {"norm_topk_prob": False}, {"mlp_only_layers": [0]})),
        *((kind, {"shards": "8KB"}) for kind in ("qwen3_moe", "qwen2_moe", "olmoe")),
    ],
    ids=str,
)
def test_experts_stored_in_one_array_are_taken_apart(tmp_path, kind, changes):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "moe_intermediate_size": 24, "num_hidden_layers": 2}
    sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "num_experts": 4, "num_experts_per_tok": 2}
    sizes |= {"vocab_size": 300, "shared_expert_intermediate_size": 24, "head_dim": 8, "pad_token_id": 0}
    folder = tiny_model_folder(tmp_path / "model")
    config = transformers.CONFIG_MAPPING[kind](**sizes, **{key: changes[key] for key in changes if key != "shards"})
    torch.manual_seed(0)
    theirs = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    (folder / "model.safetensors").unlink()
    theirs.save_pretrained(folder, max_shard_size=changes.get("shards", "1GB"), save_original_format=False)
    assert any(
        ".experts.gate_up_proj" in file.read_bytes()[:20_000].decode("latin-1") for file in folder.glob("m*.saf*")
    )
    with torch.no_grad():
        logits = theirs(torch.tensor(TOKENS % 300)).logits.numpy()
    model, _ = FastModel.from_pretrained(folder, max_seq_length=200)
    assert np.abs(np.array(model.module(mx.array(TOKENS % 300))) - logits).max() < CLOSE


# kind of model, entries no class of mlx-lm has a place for, and what the refusal names
REFUSED = [
    ("llama", {"hidden_act": "gelu"}, "hidden_act is 'gelu'"),
    ("llama", {"rope_scaling": {**YARN, "attention_factor": 3.0}}, "attention_factor is 3.0"),
    ("llama", {"rope_scaling": {**YARN, "truncate": False}}, "truncate is False"),
    ("llama", {"rope_parameters": {"rope_theta": 1e4, "partial_rotary_factor": 0.5}}, "partial_rotary_factor is 0.5"),
    ("qwen2", {"rope_scaling": {**LONG, "factor": 4.0}}, "rope_type of full_attention is 'longrope'"),
    ("qwen3", {"attention_bias": True}, "attention_bias is True"),
    ("qwen3_moe", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "'linear'"),
    ("gemma2", {"attn_logit_softcapping": None}, "attn_logit_softcapping is None"),
    ("gemma2", {"final_logit_softcapping": None}, "final_logit_softcapping is None"),
    ("gemma2", {"tie_word_embeddings": False}, "tie_word_embeddings is False"),
    ("gemma2", {"hidden_activation": "gelu"}, "hidden_activation is 'gelu'"),
    ("gemma2", {"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "'linear'"),
    ("gemma3", {"final_logit_softcapping": 30.0}, "final_logit_softcapping is 30.0"),
    ("gemma3", {"use_bidirectional_attention": True}, "use_bidirectional_attention is True"),
    ("gemma3", {"layer_types": ["full_attention"] + ["sliding_attention"] * 5}, "layers [1] of 6 see all tokens"),
    ("gemma3", {"layer_types": ["sliding_attention"] * 6}, "no layer sees all tokens"),
]


@pytest.mark.parametrize(("kind", "entries", "named"), REFUSED, ids=[f"{kind} {named}" for kind, _, named in REFUSED])
def test_a_setting_that_makes_another_model_is_refused_by_name(tmp_path, kind, entries, named):
    folder = tiny_model_folder(tmp_path / "model", kind)
    config = json.loads((folder / "config.json").read_text())
    config = {key: value for key, value in config.items() if key != "rope_theta"} | {"rope_theta": 1e4} | entries
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnreadableConfig) as refusal:
        FastModel.from_pretrained(folder)
    assert named in str(refusal.value)
    assert str(refusal.value).count("\n") == 0


def test_rows_longer_than_the_first_rotary_frequencies_are_refused(tmp_path):
    folder = tiny_model_folder(tmp_path / "phi3", "phi3", rope_scaling=LONG, original_max_position_embeddings=64)
    with pytest.raises(UnreadableConfig, match="pass max_seq_length=64"):
        FastModel.from_pretrained(folder, max_seq_length=65)
    FastModel.from_pretrained(folder, max_seq_length=64)


def test_what_transformers_fills_in_is_said(tmp_path):
    """The defaults of mlx-lm's classes are others: tied heads, 144 for Gemma 2's scale, 256 rows of a head."""
    bare = {"model_type": "llama", "hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}
    said = translated(bare)
    assert (said["tie_word_embeddings"], said["head_dim"], said["rope_theta"]) == (False, 16, 10_000.0)
    assert translated({**bare, "model_type": "gemma2"})["query_pre_attn_scalar"] == 256
    assert translated({**bare, "model_type": "qwen3"})["head_dim"] == 128
    assert translated({**bare, "model_type": "smollm3"})["rope_theta"] == 2_000_000.0
    assert translated({**bare, "model_type": "qwen3_moe"})["head_dim"] == 16
    assert translated({**bare, "model_type": "nobody_knows"}) == {**bare, "model_type": "nobody_knows"}


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_translation_is_read_alike_by_transformers_and_translated_once(kind):
    entries = {"rope_parameters": {"rope_type": "default", "rope_theta": 123_456.0}, "vocab_size": 512}
    if kind == "gemma3":
        entries["rope_parameters"] = {"full_attention": {"rope_theta": 5e5}, "sliding_attention": {"rope_theta": 2e4}}
    config = {key: value for key, value in ARCHITECTURES[kind].items() if not key.startswith("rope")} | entries
    config |= {"hidden_size": 64, "num_attention_heads": 4, "intermediate_size": 128}
    config = {"num_hidden_layers": 2, "num_key_value_heads": 2} | config
    once = translated(config)
    read = transformers.CONFIG_MAPPING[config["model_type"]].from_dict
    assert translated(once) == once
    assert read(json.loads(json.dumps(once))).rope_parameters == read(json.loads(json.dumps(config))).rope_parameters


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", ["llama", "phi3", "gemma3"])
def test_a_merged_export_is_the_same_model_to_mlx_lm_alone_and_to_transformers(tmp_path, kind):
    from mlx_lm.utils import load_model

    entries = {"rope_local_base_freq": 20_000.0} if kind == "gemma3" else {}
    _, saved, logits = twins(tmp_path, kind, rope_theta=250_000.0, **entries)
    model, _ = FastModel.from_pretrained(saved, max_seq_length=200)
    model.save_pretrained_merged(tmp_path / "merged", dtype="float32")
    stock, _ = load_model(tmp_path / "merged")
    assert np.abs(np.array(stock(mx.array(TOKENS))) - logits).max() < CLOSE
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "merged", attn_implementation="eager").eval()
    with torch.no_grad():
        assert np.abs(again(torch.tensor(TOKENS)).logits.numpy() - logits).max() < CLOSE


def test_a_window_holds_while_a_text_is_written_too(tmp_path):
    """Token by token, with what was seen before kept, as in one pass."""
    from mlx_lm.models.cache import make_prompt_cache

    folder = tiny_model_folder(tmp_path / "model", "gemma2", sliding_window=8)
    model, _ = FastModel.from_pretrained(folder, max_seq_length=64)
    tokens = mx.array(TOKENS[:, :24])
    cache = make_prompt_cache(model.module)
    written = [model.module(tokens[:, :10], cache=cache)]
    written += [model.module(tokens[:, place : place + 1], cache=cache) for place in range(10, 24)]
    whole = model.module(tokens)
    assert np.abs(np.array(mx.concatenate(written, axis=1)) - np.array(whole)).max() < 1e-4


def test_packed_documents_see_neither_each_other_nor_beyond_the_window(tmp_path):
    from tunebook.models.families.document_mask import isolating_caches

    folder = tiny_model_folder(tmp_path / "model", "gemma2", sliding_window=8)
    model, _ = FastModel.from_pretrained(folder, max_seq_length=64)
    first, second = TOKENS[:, :20], TOKENS[:, 20:36]
    segments = mx.array([[0] * 20 + [1] * 16])
    packed = model.module(mx.array(TOKENS[:, :36]), cache=isolating_caches(model.module, segments))
    alone = mx.concatenate([model.module(mx.array(first)), model.module(mx.array(second))], axis=1)
    assert np.abs(np.array(packed) - np.array(alone)).max() < 1e-4
