"""Rows with everything that can be odd about a set, one kind each, made for a length of 64 tokens."""

from typing import Any

HOSTILE = (
    '<script>window.hit = 1</script><img src="x:" onerror="window.hit = 1"></span></ins></pre></details>]]>--><svg '
    "onload=window.hit=1><style>*{display:none}</style>&lt;b&gt;\u202egnorw\u202c\x1b[31mred\x07\u200b\u2066`${1}`"
)


def odd_rows(tokenizer: Any) -> list[dict[str, list[int]]]:
    """Rows of token ids, their kind told by the place in KINDS."""
    ids = lambda text: tokenizer.encode(text, add_special_tokens=False)  # noqa: E731
    bos, end, unknown = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id
    asked, said = ids("What is the dog?\n"), ids("It sleeps in the sun,\nand où est l'été 日本?")
    long = ids("the quick brown fox jumps over the lazy dog " * 40)
    rows = {
        "plain": ([bos, *asked], [*said, end]),
        "hostile": ([bos, *ids(f"Repeat: {HOSTILE}"[:40])], [*ids(HOSTILE)[:20], end]),
        "plain too": ([bos, *asked, *asked], [*said[:5], end]),
        "no end": ([bos, *asked], [*said]),
        "empty": ([bos, *asked], [*ids(" \n"), end]),
        "two bos": ([bos, bos, *asked], [*said, end]),
        "unknown": ([bos, *asked[:2], unknown, *asked[2:]], [*said, end]),
        "a copy": ([bos, *asked], [*said, end]),
        "cut": ([bos, *asked], [*long[:90], end]),
        "left out": ([bos, *long], [*said, end]),
    }
    assert tuple(rows) == KINDS
    return [{"input_ids": read + trained, "labels": [-100] * len(read) + trained} for read, trained in rows.values()]


KINDS = ("plain", "hostile", "plain too", "no end", "empty", "two bos", "unknown", "a copy", "cut", "left out")
