"""A tokenizer as it stands now: what was left on by a call or in a file is off, what a person changed is in force.

mlx-lm's wrapper looks at a tokenizer once, when it is loaded, and transformers leaves the truncation and padding of the
last call switched on. A tokenizer goes in and is brought up to date in place; its texts are never cut or padded here.
"""

import hashlib
import json
from typing import cast

from mlx_lm.tokenizer_utils import NaiveStreamingDetokenizer, TokenizerWrapper
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase


def uncut(tokenizer: TokenizerWrapper | PreTrainedTokenizerBase) -> Tokenizer:
    """The backend of `tokenizer`, which then encodes every text as long as it is.

    transformers sets both anew in each of its own calls, so nobody else sees a difference.
    """
    backend = cast("Tokenizer", tokenizer.backend_tokenizer)  # what transformers declares is any special token
    if backend.truncation is not None:
        backend.no_truncation()
    if backend.padding is not None:
        backend.no_padding()
    return backend


def bring_up_to_date(tokenizer: TokenizerWrapper) -> None:
    """Have the wrapper see what was changed on the tokenizer since: its end token, chat template and new tokens."""
    uncut(tokenizer)
    if tokenizer.eos_token is not None:
        tokenizer.add_eos_token(tokenizer.eos_token)
    tokenizer.has_chat_template = tokenizer.chat_template is not None or renders_in_python(tokenizer)
    known = vars(tokenizer.detokenizer).get("tokenmap")  # of the detokenizers that keep one
    if known is not None and len(known) < len(tokenizer):
        tokenizer._detokenizer = NaiveStreamingDetokenizer(_inner(tokenizer))


def renders_in_python(tokenizer: TokenizerWrapper) -> bool:
    """Whether its chats are rendered by code of a library, whatever its chat template is."""
    own = type(_inner(tokenizer)).apply_chat_template is not PreTrainedTokenizerBase.apply_chat_template
    return own or vars(tokenizer)["_chat_template"] is not None


def digest_of(tokenizer: TokenizerWrapper) -> str:
    """The same for tokenizers that make the same of every text; its chat template has no part in it."""
    document = uncut(tokenizer).to_str() + json.dumps(tokenizer.special_tokens_map, sort_keys=True, default=str)
    return hashlib.sha256(document.encode()).hexdigest()


def _inner(tokenizer: TokenizerWrapper) -> PreTrainedTokenizerBase:
    """The tokenizer within the wrapper (mlx-lm 0.32), which forwards to it all it has not itself."""
    return vars(tokenizer)["_tokenizer"]
