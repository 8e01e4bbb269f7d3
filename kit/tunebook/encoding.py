"""Rows -> token ids and loss masks, once, before training, with an account of everything that was cut or left out."""

from collections.abc import Sequence

from .families.base import Encoded
from .formats import to_examples
from .loader import Loaded
from .progress import progress
from .sources import Row


def encode_rows(
    rows: Sequence[Row], loaded: Loaded, *, max_seq_length: int, format: str | None = None, name: str = "rows"
) -> tuple[list[Encoded], list[str]]:
    """(encoded rows, sentences about what did not fit).

    A row longer than `max_seq_length` tokens is cut on the right; one whose whole answer is cut off is left out. Raises
    ValueError when none is left, and for rows `formats.to_examples` refuses.
    """
    examples = progress(to_examples(rows, loaded.tokenizer, format), f"Tokenizing {name}", total=len(rows))
    encoded = [loaded.family.encode(example, max_seq_length) for example in examples]
    kept = [row for row in encoded if row.supervised_tokens]
    cut = [row for row in kept if row.cut]
    if not kept:
        raise ValueError(
            f"No row of {name} keeps a token of its answer within {max_seq_length} tokens; raise max_seq_length."
        )
    notices = []
    if cut:
        notices.append(
            f"{len(cut)} of {len(rows)} rows of {name} are longer than {max_seq_length} tokens and were cut on the "
            f"right, the longest by {max(row.cut for row in cut)}; their answers do not end."
        )
    if len(kept) < len(rows):
        notices.append(
            f"{len(rows) - len(kept)} of {len(rows)} rows of {name} were left out: within {max_seq_length} tokens "
            "nothing of their answer remains."
        )
    return kept, notices
