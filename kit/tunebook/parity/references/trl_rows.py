"""TRL's own reading of preference rows, as it stands in its trainers: rows in, token ids out."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

Row = dict[str, Any]
Sequence = tuple[list[int], list[int]]  # ids, 1 for a token of the answer


class Rows:
    """Rows with the few methods of a data set that TRL calls; `datasets` would write each step to the disk."""

    def __init__(self, rows: list[Row]):
        self.rows = rows

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)

    def map(
        self, function: Callable[..., Row], *, fn_kwargs: Row | None = None, batched: bool = False, batch_size: int = 0
    ) -> "Rows":
        if not batched:
            return Rows([{**row, **function(dict(row), **(fn_kwargs or {}))} for row in self.rows])
        made: list[Row] = []
        for start in range(0, len(self.rows), batch_size):
            some = self.rows[start : start + batch_size]
            columns = function({name: [row[name] for row in some] for name in some[0]})
            made += [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        return Rows(made)

    def filter(self, function: Callable[[Row], bool]) -> "Rows":
        return Rows([row for row in self.rows if function(row)])


def pairs(rows: list[Row], tokenizer: Any, max_length: int | None) -> list[list[Sequence]]:
    """(prompt and chosen, prompt and rejected) of each row that is kept, with the masks of their answers."""
    from trl.trainer.dpo_trainer import DataCollatorForPreference, DPOTrainer

    args = SimpleNamespace(dataset_num_proc=None, max_length=max_length, truncation_mode="keep_start")
    prepare: Any = DPOTrainer._prepare_dataset
    kept = prepare(SimpleNamespace(_tokenizer=tokenizer), Rows(rows), tokenizer, args, "train").rows
    collate = DataCollatorForPreference(pad_token_id=0, max_length=max_length)
    return [unpadded(collate([row]), ("input_ids", "attention_mask", "completion_mask")) for row in kept]


def labelled(
    rows: list[Row], tokenizer: Any, max_length: int | None, batch_size: int
) -> list[tuple[list[Sequence], list[Sequence]]]:
    """(its sequence, its prompt with another answer) of each row that is kept, each alone in a list."""
    from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference, KTOTrainer

    args = SimpleNamespace(dataset_num_proc=None, max_length=max_length, per_device_train_batch_size=batch_size)
    prepare: Any = KTOTrainer._prepare_dataset
    kept = prepare(SimpleNamespace(_tokenizer=tokenizer, calculate_KL=True), Rows(rows), tokenizer, args, "eval").rows
    collate = DataCollatorForUnpairedPreference(pad_token_id=0, max_length=max_length)
    names = ("input_ids", "attention_mask", "completion_mask")
    made = [collate([row]) for row in kept]
    return [(unpadded(one, names), unpadded(one, ["KL_" + name for name in names])) for one in made]


def unpadded(batch: Row, names: Any) -> list[Sequence]:
    """(ids, mask of the answer) of each sequence of a batch."""
    ids, real, answer = (batch[name].numpy() for name in names)
    return [(ids[row][real[row] == 1].tolist(), answer[row][real[row] == 1].tolist()) for row in range(len(ids))]
