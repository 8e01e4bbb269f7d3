"""Names, samples, notices and numbers of any kind are shown as what they are, and do nothing to who looks at them."""

import io
import json
import math
from dataclasses import replace

import pytest
from PIL import Image

from tunebook import TrainResult
from tunebook.data.sources import read_rows
from tunebook.events import EndReason, EvalEvent, Notice, RunEnded, RunStarted, SampleEvent, StepEvent
from tunebook.export.card import model_card
from tunebook.export.report import Export, ExportTable
from tunebook.machine.doctor import Diagnosis, Problem
from tunebook.machine.inert import one_line, visible
from tunebook.machine.progress_bars import progress
from tunebook.runs.folder import event_log, load
from tunebook.runs.progress_bar import run_bar
from tunebook.tokens.data_report import inspect
from tunebook.tokens.encoding import encode_rows
from tunebook_widgets import Chat, ExportPanel, TokenView, compare
from tunebook_widgets.dashboard.compare import _picture
from tunebook_widgets.dashboard.freeze import frozen_picture, frozen_table
from tunebook_widgets.dashboard.recorded import recorded_run
from tunebook_widgets.dashboard.status import status_table
from tunebook_widgets.dashboard.terminal import TerminalScreen

HOSTILE = "red\x1b[31m title\x1b]0;x\x07 \x9b2J back\x08\r over \u202etxt\u2066 zero\u200b \x00 line\u2028end"
ACTING = "\x1b\x07\x9b\x08\r\u202e\u2066\u200b\x00\u2028"


def step(number, **changes):
    values = {"loss": 1.0, "lr": 1e-4, "tokens_sec": 1.0, "peak_gb": 1.0, "elapsed": float(number), "grad_norm": 1.0}
    return StepEvent(**({"step": number, "total_steps": 3, "num_tokens": number} | values | changes))


def events(*steps, text="plain"):
    return [
        RunStarted(
            total_steps=3,
            model=text,
            trainable_parameters=1,
            total_parameters=2,
            train_rows=3,
            eval_rows=1,
            awaited=True,
            config={"learning_rate": 1e-4, text: text, "optim": text},
        ),
        *(steps or (step(1), step(2))),
        EvalEvent(step=1, loss=1.0, rows=1, tokens=1, seconds=1.0),
        SampleEvent(step=1, prompt=text, text=text, seconds=1.0),
        Notice(step=1, text=text),
        RunEnded(step=2, total_steps=3, reason=EndReason.FAILED, message=text, elapsed=1.0),
    ]


def recorded(folder, told):
    folder.mkdir()
    keep = event_log(folder)
    for event in told:
        keep(event)
    return folder


def is_inert(text):
    return not set(ACTING) & set(text)


def test_a_character_that_acts_is_named_and_everything_else_stays():
    assert visible("a\tb\nc é 日本 🎉 ́ <b>") == "a\tb\nc é 日本 🎉 ́ <b>"
    assert visible("\x1b[31m\x9b\u202e\ud800\x7f") == "⟨U+001B⟩[31m⟨U+009B⟩⟨U+202E⟩⟨U+D800⟩⟨U+007F⟩"
    assert one_line(["a\nb"]) == "['a\\nb']"
    assert "\n" not in one_line("a\nb\tc")


def test_what_a_run_says_does_nothing_to_a_terminal_or_a_page(tmp_path, capsys):
    folder = recorded(tmp_path / "hostile", events(text=HOSTILE))
    run, lines, bar = recorded_run(folder), [], run_bar()
    screen = TerminalScreen(write=lines.append)
    for event in events(text=HOSTILE):
        screen.update(run, event)
        bar(event)
    list(progress([1], HOSTILE))
    compared = compare([folder, recorded(tmp_path / "other", events())], names=[HOSTILE, "b"])
    bundles = [frozen_table(run), frozen_picture(run)[0], status_table(run), compared._repr_mimebundle_()]
    for text in [*lines, repr(load(folder)), repr(compared), *(bundle[kind] for bundle in bundles for kind in bundle)]:
        assert is_inert(text), text
    printed = capsys.readouterr().out.replace("\r", "")  # the bar draws itself over
    assert is_inert(printed.replace("\x1b[A", ""))


NAMES = ["$x$", "$\\frac{$", "$", "_hidden", "a\nb", HOSTILE, "<b>", "日本語", "\ud800", "%s {0}", "a" * 3000, "", " "]


@pytest.mark.parametrize("name", NAMES, ids=range(len(NAMES)))
def test_a_run_of_any_name_is_compared_and_is_in_the_legend(name, tmp_path):
    folders = [recorded(tmp_path / place, events()) for place in ("a", "b")]
    compared = compare(folders, names=[name, "other"])
    assert len(compared._repr_mimebundle_()["text/html"]) < 10_000
    with Image.open(io.BytesIO(_picture(compared))) as picture:
        assert picture.size == (1520, 920)


NUMBERS = [math.nan, math.inf, -math.inf, 1e308, -1e308, 1e-308, 0.0, -5.0]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_run_of_any_number_is_drawn_and_said(number, tmp_path):
    names = ("loss", "lr", "tokens_sec", "peak_gb", "elapsed", "grad_norm")
    odd = events(step(1, **dict.fromkeys(names, number)), step(2))
    odd.insert(3, EvalEvent(step=2, loss=number, rows=1, tokens=1, seconds=number))
    folder = recorded(tmp_path / "odd", odd)
    run = recorded_run(folder)
    assert frozen_picture(run)[0]["image/png"]
    assert frozen_table(run)["text/plain"]
    assert status_table(run)["text/plain"]
    assert _picture(compare([folder, recorded(tmp_path / "other", events())]))


@pytest.mark.parametrize("numbers", [(3, 1, 2), (1, 1, 1), (10**15, 10**16), (-3, 0)])
def test_steps_that_go_back_stand_still_or_leap_are_drawn(numbers, tmp_path):
    run = recorded_run(recorded(tmp_path / "run", events(*(step(number) for number in numbers))))
    assert frozen_picture(run)[0]["image/png"]


def everything_of_exports(folder):
    path = folder / HOSTILE.replace("\0", "")
    path.write_bytes(b"0")
    export = Export(kind="f32", path=path, notes=(HOSTILE,), commands=(f"llama-cli -m {HOSTILE}",))
    table = ExportTable([export])
    return [repr(export), export._repr_html_(), repr(table), table._repr_html_()]


def everything_of_rows(model, folder):
    file = folder / f"{HOSTILE.replace(chr(0), '')}.jsonl"
    row = {"messages": [{"role": "user", "content": "so?"}, {"role": "assistant", "content": "no"}], HOSTILE: 1}
    file.write_text(json.dumps(row) + "\n")
    rows = read_rows(file)
    encoded = encode_rows(rows, model.loaded, max_seq_length=64, name=HOSTILE)
    report, view = inspect(encoded, model.loaded.tokenizer), TokenView(model, rows)
    return [repr(rows), str(report), *map(str, report.findings), repr(view), view._repr_html_()]


def everything_of_panels(model, folder):
    exports, chat = ExportPanel(model, folder / HOSTILE.replace("\0", "")), Chat(model)
    return [repr(exports), exports.name, exports.place, repr(chat), chat.name]


def test_what_a_person_has_printed_does_nothing_to_a_terminal_or_a_page(tuned, tmp_path):
    tuned.loaded = replace(tuned.loaded, name=HOSTILE)
    result = TrainResult(
        reason=EndReason.FAILED, message=HOSTILE, steps=(), evals=(), samples=(), seconds=1.0, run_folder=None
    )
    diagnosis = Diagnosis(facts=(("cache", HOSTILE),), problems=(Problem(text=HOSTILE, fix=HOSTILE),))
    shown = [
        repr(tuned),
        repr(result),
        str(diagnosis),
        diagnosis._repr_html_(),
        model_card(tuned.loaded, (), "merged", place=HOSTILE),
        *everything_of_exports(tmp_path),
        *everything_of_rows(tuned, tmp_path),
        *everything_of_panels(tuned, tmp_path),
    ]
    for text in shown:
        assert is_inert(text), text
    assert sum("⟨U+202E⟩" in text for text in shown) > len(shown) / 2  # it is named, and not left out
