"""Models whose tokenizer has pieces with scores, byte tokens and ▁ for spaces, as SentencePiece makes them."""

from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from tests.makers.tiny import tiny_model_folder

SPECIAL = ["<pad>", "<eos>", "<bos>", "<unk>"]
BYTES = [f"<0x{value:02X}>" for value in range(256)]


def merges_of(scored: dict[str, float], known: set[str]) -> list[tuple[str, str]]:
    """As transformers orders them: by score, and for equal ones by the length of the left half, then of the right."""
    ways = [
        (token[:cut], token[cut:])
        for token in scored
        for cut in range(1, len(token))
        if {token[:cut], token[cut:]} <= known
    ]
    return sorted(ways, key=lambda way: (scored[way[0] + way[1]], len(way[0]), len(way[1])), reverse=True)


def folder_of(folder: Path, scored: dict[str, float], *, prefix: bool = False, defined: tuple[str, ...] = ()) -> Path:
    """A model whose tokenizer has these pieces and scores, every letter and byte, and `defined` tokens of a person."""
    letters = sorted({letter for token in scored for letter in token} | set("abcdefghijklmnopqrstuvwxyz"))
    tokens = list(dict.fromkeys([*SPECIAL, *BYTES, *scored, *letters]))
    ids = {token: index for index, token in enumerate(tokens)}
    merges = merges_of(scored, set(tokens))
    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    replace = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace]) if prefix else replace
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in defined])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<eos>", bos_token="<bos>", unk_token="<unk>"
    )
    tiny_model_folder(folder, "llama", vocab_size=len(fast))
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja"):
        (folder / name).unlink(missing_ok=True)
    fast.save_pretrained(folder)
    return folder
