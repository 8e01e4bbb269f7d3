"""What trackers hold of a run that was told to them, read back from the files each of them itself wrote.

TensorBoard's files are read with TensorBoard's own reader, W&B's offline file as the LevelDB log of protobuf records it
is, Trackio's database with sqlite3. W&B and Trackio run in a process of their own: both leave threads and services
behind, and read their settings when they are imported.
"""

import json
import os
import sqlite3
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tunebook import bridges, runs
from tunebook.events import (
    to_json,
)


class TensorBoardRun:
    """What TensorBoard reads in a folder."""

    def __init__(self, folder: Path):
        event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        reader = event_accumulator.EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0}).Reload()
        self.numbers = {
            name: [(event.step, event.value) for event in reader.Scalars(name)] for name in reader.Tags()["scalars"]
        }
        self.texts = {
            name.removesuffix("/text_summary"): [
                (event.step, event.tensor_proto.string_val[0].decode()) for event in reader.Tensors(name)
            ]
            for name in reader.Tags()["tensors"]
        }


class WandbRun:
    """What an offline run's file holds."""

    def __init__(self, file: Path):
        records = list(wandb_records(file))
        self.project = next(record.run.project for record in records if record.HasField("run"))
        self.facts = {
            item.key: json.loads(item.value_json)
            for record in records
            for item in [*record.run.config.update, *record.config.update]
        }
        self.rows = [
            (record.history.step.num, {key_of(item): json.loads(item.value_json) for item in record.history.item})
            for record in records
            if record.HasField("history")
        ]
        self.numbers = {
            name: [(step, float(row[name])) for step, row in self.rows if name in row] for name in bridge_names()
        }
        self.texts = {
            title: [(step, row[title]) for step, row in self.rows if title in row] for title in ("notice", "checkpoint")
        }
        self.summary = {
            key_of(item): json.loads(item.value_json) for record in records for item in record.summary.update
        }
        self.exit_code = next(record.exit.exit_code for record in records if record.HasField("exit"))


class TrackioRun:
    """What Trackio's database holds of one run."""

    def __init__(self, database: sqlite3.Connection, run_id: str):
        (facts,) = database.execute("select config from configs where run_id = ?", [run_id]).fetchone()
        self.facts = {name: value for name, value in json.loads(facts).items() if not name.startswith("_")}
        logged = database.execute("select step, metrics from metrics where run_id = ? order by id", [run_id])
        self.numbers, self.texts = {}, {}
        for step, row in logged:
            for name, value in json.loads(row).items():
                if isinstance(value, dict):
                    self.texts.setdefault(name, []).append((step, value["_value"]))
                else:
                    self.numbers.setdefault(name, []).append((step, float(value)))


def bridge_names():
    return [*(name for names in bridges.METRICS.values() for name in names), "exam/exact_match"]


def key_of(item):
    return item.key or ".".join(item.nested_key)


def wandb_records(file: Path):
    """The records of a .wandb file: a LevelDB log (32 KiB blocks; chunks of crc, length, kind), after 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, parts = file.read_bytes(), 7, b""
    while position < len(data):
        left = 32768 - position % 32768
        if left < 7:  # no room for a chunk's head
            position += left
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last chunk of one
            yield Record.FromString(parts)
            parts = b""
    assert not parts


def replay_tensorboard(folder: Path, *events) -> list[TensorBoardRun]:
    pytest.importorskip("tensorboardX")
    bridge = bridges.tensorboard(folder)
    for event in events:
        bridge(event)
    return [TensorBoardRun(path) for path in sorted(folder.iterdir())]


def replay_wandb(folder: Path, *events, arguments="'p'", around="{}") -> list[WandbRun]:
    pytest.importorskip("wandb")
    settings = {
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(folder),
        "WANDB_ERROR_REPORTING": "false",
        "WANDB_SILENT": "true",
    }
    replay_elsewhere(folder, events, f"bridges.wandb({arguments})", settings, around)
    files = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime_ns)
    return [WandbRun(file) for file in files]


def replay_trackio(folder: Path, *events, arguments="'p'") -> list[TrackioRun]:
    pytest.importorskip("trackio")
    settings = {"TRACKIO_DIR": str(folder / "trackio"), "HF_HUB_OFFLINE": "1"}
    replay_elsewhere(folder, events, f"bridges.trackio({arguments})", settings)
    database = sqlite3.connect(folder / "trackio" / "p.db")
    try:
        ids = [row[0] for row in database.execute("select run_id from configs order by id")]
        return [TrackioRun(database, run_id) for run_id in ids]
    finally:
        database.close()


def replay_elsewhere(folder: Path, events, bridge: str, settings: dict[str, str], around: str = "{}") -> None:
    """Replay recorded events in a process of its own, as a user would; `around` is what else the program does."""
    (folder / runs.EVENTS_FILE).write_text("".join(to_json(event) + "\n" for event in events))
    program = (
        "from tunebook import bridges, runs\n"
        f"bridge = {bridge}\n"
        f"for event in runs.read_events({str(folder)!r}):\n"
        "    bridge(event)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", around.format(program)],
        env={**os.environ, **settings},
        cwd=folder,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
