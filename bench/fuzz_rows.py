"""Odd rows and sets, as people bring them: a Trainer is made of each in its own process, in limits, and takes a step.

`python bench/fuzz_rows.py 1000` mutates keys and values of good rows of every format, for a text and a vision model,
and gives them as a list, a file, a frame or a generator. It says how many were trained on (a finite loss, every row
trained on, held out or said to be left out) and how many refused in one sentence, and names every other outcome.
Exit status 1 where there is one. A second number says which set is the first.
"""

import csv
import json
import math
import os
import random
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import pandas
from limited import count_outcomes, is_refusal, outcome, prepare
from odd_values import IMAGE, odd_values

from tests.makers.tiny import tiny_model_folder
from tests.makers.tiny_vision import noise_images, tiny_vision_folder
from tunebook import FastModel, MultimodalPretrain, Trainer, TrainingConfig

Rows = list[Any]
REFUSALS = (TypeError, ValueError, FileNotFoundError)
KINDS = ("messages", "sharegpt", "alpaca", "completion", "turns", "text", "ids", "images", "image", "documents")
OF_VISION = ("images", "image", "documents")
GIVEN = ("list", "list", "list", "jsonl", "json", "csv", "frame", "generator", "stream")
# Keys that somebody reads, put where they may not belong.
KEYS = (
    *("messages", "conversations", "system", "tools", "history", "weight", "train", "train_on_turn", "labels", "image"),
    *("images", "input", "input_ids", "attention_mask", "role", "from", "value", "content", "type", "tool_calls"),
    *("function_call", "reasoning_content", "name", "functions", "text", "", "\0", "\ud800", "é" * 5000),
)


def good_row(kind: str, number: int, folder: Path) -> dict[str, Any]:
    """A row of a format, each number's unlike the others."""
    question, answer, path = f"What is {number}?", f"It is the number {number}.", str(folder / IMAGE)
    ask, reply = {"role": "user", "content": question}, {"role": "assistant", "content": answer}
    seen = {"role": "user", "content": [{"type": "image", "image": path}, {"type": "text", "text": question}]}
    ids = [5, 9, 7, 11 + number]
    match kind:
        case "messages":
            return {"messages": [ask, reply, ask, reply]}
        case "sharegpt":
            return {"conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]}
        case "alpaca":
            return {"instruction": question, "input": "", "output": answer, "history": [["Why?", "So."]]}
        case "completion":
            return {"prompt": question, "completion": answer}
        case "turns":
            return {"prompt": [ask], "completion": [reply]}
        case "text":
            return {"text": question + answer}
        case "ids":
            return {"input_ids": ids, "labels": [-100, *ids[1:]]}
        case "images":
            return {"messages": [seen, reply]}
        case "image":
            return {"prompt": question, "completion": answer, "image": path}
        case _:
            return {"text": f"<|image_pad|>{answer}", "images": [path]}


def places(value: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """(a dict or a list, a key of it) for every place in a row."""
    if depth < 8 and isinstance(value, dict | list):
        for key in list(value) if isinstance(value, dict) else range(len(value)):
            yield value, key
            yield from places(value[key], depth + 1)


def mutated(row: Any, folder: Path, dice: random.Random) -> tuple[Any, str]:
    """(the row with something odd in it, what was done)."""
    odd = dice.choice(odd_values(folder, dice))()
    said = repr(odd)[:60] if not isinstance(odd, dict | list | tuple | int) else type(odd).__name__
    kind = dice.choice(("value", "value", "value", "value", "value", "key", "rename", "away", "turn", "row"))
    if kind == "row":
        return odd, f"the row is {said}"
    spots = list(places(row))
    if not isinstance(row, dict) or not spots:
        return row, "nothing"
    holder, key = dice.choice(spots)
    where = f"{key!r} in {type(holder).__name__}"
    if kind == "value":
        holder[key] = odd
    elif kind == "away":
        del holder[key]
    elif kind == "turn" and isinstance(holder, list):
        holder.insert(key, odd)
    elif kind == "rename" and isinstance(holder, dict):
        holder[dice.choice((*KEYS, 3, None, ("a", "b"), key.upper() if isinstance(key, str) else 1))] = holder.pop(key)
    elif isinstance(holder, dict):
        named = dice.choice((*KEYS, *KEYS, 3, None, math.nan))
        holder[named], where = odd, f"new {str(named)[:20]!r}"
    return row, f"{kind} {where}: {said}"


def given(rows: Rows, how: str, folder: Path) -> Any:
    """The rows as a person gives them; None where they cannot be given so."""
    file = folder / f"rows.{how}"
    try:
        match how:
            case "jsonl" | "json":
                text = json.dumps(rows) if how == "json" else "".join(json.dumps(row) + "\n" for row in rows)
                file.write_text(text, encoding="utf-8", errors="surrogatepass")
                return file
            case "csv":
                with file.open("w", encoding="utf-8", errors="surrogatepass", newline="") as out:
                    writer = csv.DictWriter(out, dict.fromkeys(key for row in rows for key in row))
                    writer.writeheader()
                    writer.writerows(rows)
                return file
            case "frame":
                return pandas.DataFrame(rows)
            case "generator":
                return (row for row in rows)
            case "stream":
                return lambda: iter(rows)
            case _:
                return rows
    except Exception:  # noqa: BLE001 (what json, csv or pandas does not write, nobody brings in such a file)
        return None


def try_rows(number: int, sources: Path) -> str:
    """Make a trainer of the rows of that number and take a step; say "trained", "refused" or what is wrong."""
    warnings.simplefilter("ignore")  # NumPy's and pandas', of what is odd here
    dice = random.Random(number)
    kind = dice.choice(KINDS)
    sees = kind in OF_VISION or dice.random() < 0.2
    rows: Rows = [good_row(kind, place, sources) for place in range(dice.choice((1, 2, 3, 6, 6, 12, 24)))]
    done = []
    for _ in range(dice.choice((1, 1, 1, 2, 3))):
        place = dice.randrange(len(rows))
        rows[place], what = mutated(rows[place], sources, dice)
        done.append(f"row {place}: {what}")
    if dice.random() < 0.05:
        rows.append(good_row(dice.choice(KINDS), 99, sources))
    how = dice.choice(GIVEN)
    with tempfile.TemporaryDirectory() as place:
        # Below the folder of a file lie the images its rows may name; a file elsewhere may name none of them.
        source = given(rows, how, Path(place) if dice.random() < 0.2 else sources)
        if source is None:
            how, source = "list", rows
        entry = MultimodalPretrain(source, skip_bad_images=dice.random() < 0.5) if kind == "documents" else source
        told = f"{kind}{' with images' if sees else ''} as {how}, {'; '.join(done)}"
        try:
            said = trained(entry, len(rows), how == "stream", sources / ("vision" if sees else "text"))
        except REFUSALS as error:
            if is_refusal(error):
                raise
            raise RuntimeError(f"{type(error).__name__}: {str(error)[:200]} ({told})") from error
        except Exception as error:
            raise RuntimeError(f"{type(error).__name__}: {str(error)[:200]} ({told})") from error
    return said if said == "trained" else f"{said} ({told})"


def trained(source: Any, count: int, streams: bool, folder: Path) -> str:
    """Take one step; say "trained", or what is wrong with it."""
    model, _ = FastModel.from_pretrained(folder, max_seq_length=128)
    model = FastModel.get_peft_model(model, r=2)
    config = TrainingConfig(max_steps=1, output_dir=None, streaming=streams, hold_out=0 if streams else 0.2)
    trainer = Trainer(model, train_dataset=source, args=config)
    result = trainer.train()
    if not result.steps or not math.isfinite(result.steps[0].loss):
        return f"a loss that is not finite: {result.message}"
    data = trainer.data
    seen: set[int] = set()
    for encoded in filter(None, (data.train, data.held_out)):
        account = encoded.account
        seen |= {row.number for row in encoded.rows} | {*account.left_out, *account.images_beyond}
        seen |= {*account.documents_beyond, *account.bad_images}
    copies = sum(int(found[1]) for text in data.notices if (found := re.search(r"; (\d+) copies of them", text)))
    return "trained" if len(seen) + copies == count else f"{len(seen)} rows and {copies} copies of {count}"


def make_sources(folder: Path) -> None:
    """A text model, one that sees, and an image."""
    folder.mkdir()
    tiny_model_folder(folder / "text")
    tiny_vision_folder(folder / "vision", "qwen2_vl")
    noise_images(1)[0].save(folder / IMAGE)


def main(count: int, first: int = 0) -> int:
    """Try `count` sets, from number `first` on."""
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as place:
        sources = Path(place) / "sources"
        prepare(partial(make_sources, sources))
        numbers = range(first, first + count)
        tried = ((f"set {number}", outcome(partial(try_rows, number, sources), REFUSALS)) for number in numbers)
        return count_outcomes(tried, ("trained", "refused"))


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:3] or ["200"])))
