"""The hyper-parameters and tensor rules most architectures share, for the rows of the table to put together."""

from .rules import Key, TensorRule

KEYS = (
    Key("context_length", "max_position_embeddings"),
    Key("embedding_length", "hidden_size"),
    Key("block_count", "num_hidden_layers"),
    Key("feed_forward_length", "intermediate_size"),
    Key("attention.head_count", "num_attention_heads"),
    Key("attention.head_count_kv", "num_key_value_heads"),
    Key("attention.key_length", "head_dim"),
    Key("attention.value_length", "head_dim"),
    Key("rope.dimension_count", "head_dim"),
    Key("attention.layer_norm_rms_epsilon", "rms_norm_eps", float),
    Key("rope.freq_base", "rope_theta", float),
    Key("vocab_size", "vocab_size"),
)

ENDS = (
    TensorRule("model.embed_tokens", once=True),
    TensorRule("model.norm", once=True),
    TensorRule("lm_head", once=True),
)
NORMS = (TensorRule("input_layernorm"), TensorRule("post_attention_layernorm"))
HEAD_NORMS = (TensorRule("self_attn.q_norm"), TensorRule("self_attn.k_norm"))
ATTENTION = (
    TensorRule("self_attn.q_proj"),
    TensorRule("self_attn.k_proj"),
    TensorRule("self_attn.v_proj"),
    TensorRule("self_attn.o_proj"),
)
PAIRED_ATTENTION = (
    TensorRule("self_attn.q_proj", heads="num_attention_heads"),
    TensorRule("self_attn.k_proj", heads="num_key_value_heads"),
    TensorRule("self_attn.v_proj"),
    TensorRule("self_attn.o_proj"),
)
GATED_MLP = (TensorRule("mlp.gate_proj"), TensorRule("mlp.up_proj"), TensorRule("mlp.down_proj"))
EXPERTS = (
    TensorRule("mlp.gate", exact=True),  # which expert a token goes to hangs on small differences
    TensorRule("mlp.experts.gate_proj", stacked=True),
    TensorRule("mlp.experts.up_proj", stacked=True),
    TensorRule("mlp.experts.down_proj", stacked=True),
)
