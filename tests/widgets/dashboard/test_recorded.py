"""Runs that are over: read back from their logs, shown again, laid side by side, on a machine that trains nothing."""

import io
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import nbclient
import nbconvert
import nbformat
import numpy as np
import pytest
from PIL import Image

from tests.browser import rehearsal
from tests.browser.rehearsal import Rehearsal
from tunebook.events import EndReason, RunStarted, StepEvent
from tunebook.runs.folder import EVENTS_FILE, event_log, load
from tunebook_widgets import Dashboard, compare
from tunebook_widgets.dashboard.compare import _picture
from tunebook_widgets.dashboard.progress import Progress
from tunebook_widgets.dashboard.recorded import recorded_run
from tunebook_widgets.esm import VIEW, esm


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The run folder of a run of 40 steps, one of them not finite."""
    folder = tmp_path_factory.mktemp("runs") / "run-001"
    folder.mkdir()
    trainer = Rehearsal(steps=40, seconds=0, broken=(17,))
    trainer.subscribe(event_log(folder))
    trainer.train()
    return folder


def test_a_run_read_back_is_the_run_that_was_watched(tmp_path):
    watched, trainer = Progress(), Rehearsal(steps=30, seconds=0, broken=(7,), notice="A row was cut.")
    trainer.subscribe(watched.add)
    trainer.subscribe(event_log(tmp_path))
    trainer.train()
    read = recorded_run(tmp_path)
    np.testing.assert_array_equal(read.rows(), watched.rows())
    for name in ("started", "evals", "samples", "notices", "ended", "total_steps", "best_eval"):
        assert getattr(read, name) == getattr(watched, name)


def test_a_run_can_be_named_by_folder_file_history_or_result(folder):
    ways = [folder, str(folder), folder / EVENTS_FILE, load(folder), SimpleNamespace(run_folder=folder)]
    assert [recorded_run(way).steps for way in ways] == [40] * 5


def test_a_run_that_kept_no_log_says_what_to_set():
    with pytest.raises(ValueError, match=r"Set TrainingConfig.output_dir before the next one"):
        Dashboard(SimpleNamespace(run_folder=None))


def test_a_log_that_has_no_end_is_shown_and_said_to_have_none(folder, tmp_path):
    lines = (folder / EVENTS_FILE).read_text().splitlines(keepends=True)
    (tmp_path / EVENTS_FILE).write_text("".join(lines[:20]))
    run = recorded_run(tmp_path)
    assert run.ended is not None
    assert run.ended.reason is EndReason.INTERRUPTED
    assert "The log has no end" in run.ended.message
    (tmp_path / EVENTS_FILE).write_text("".join(lines[1:20]))
    with pytest.raises(ValueError, match="does not say what run it is of"):
        recorded_run(tmp_path)


def test_a_recorded_run_is_shown_where_there_is_no_mlx(folder):
    code = (
        "import sys\n"
        "for name in ('mlx', 'mlx.core', 'mlx_lm', 'torch', 'transformers'): sys.modules[name] = None\n"
        "from tunebook_widgets import Dashboard, compare, replay\n"
        f"replay({str(folder)!r}).show()\nDashboard({str(folder)!r}).show()\n"
        f"print(compare([{str(folder)!r}] * 2, names=['one', 'other']))"
    )
    printed = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.count("Finished all 40 steps") == 2
    assert re.search(r"one +other", printed.stdout)


def test_in_an_executed_notebook_a_replay_and_a_run_brought_back_are_what_a_saved_run_is(folder, tmp_path):
    shutil.copy(Path(rehearsal.__file__), tmp_path)
    cells = [
        f"from tunebook_widgets import Dashboard, compare, replay\nfolder = {str(folder)!r}\nreplay(folder)",
        "Dashboard(folder)",
        "compare([folder, folder])",
        "from rehearsal import Rehearsal\ntrainer = Rehearsal(steps=3, seconds=0)\ndashboard = Dashboard(trainer)\n"
        "await trainer.train_async();",
        "dashboard.thaw()",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=60, resources={"metadata": {"path": str(tmp_path)}}).execute()
    kinds = [[sorted(output.data) for output in cell.outputs] for cell in notebook.cells]
    assert kinds == [[["image/png", "text/plain"], ["text/html", "text/plain"]]] * 5
    pictures = [cell.outputs[0].data["image/png"].strip() for cell in notebook.cells]
    assert pictures[0] == pictures[1]
    page, _ = nbconvert.HTMLExporter().from_notebook_node(notebook)
    for picture in pictures:
        assert re.sub(r"\s", "", picture) in re.sub(r"\s", "", page)
    assert "Finished all 40 steps" in page


def test_what_has_not_ended_cannot_be_brought_back(monkeypatch):
    monkeypatch.setenv("TUNEBOOK_UI", "text")
    with pytest.raises(ValueError, match="There is no run that has ended"):
        Dashboard(Rehearsal()).thaw()


# ---- side by side


def test_of_the_settings_those_that_differ_are_told_and_no_others(tmp_path):
    folders = [_logged(tmp_path / name, config) for name, config in _CONFIGS.items()]
    compared = compare(folders)
    assert compared.names == ("run-001", "run-002")
    assert dict(compared.rows) == {
        "Steps": ["2 of 2", "2 of 2"],
        "Last loss, smoothed": ["1.500", "1.500"],  # (2 + 1) / 2
        "Best held-out loss": ["–", "–"],
        "Time": ["2.0 s", "2.0 s"],
        "learning_rate": ["0.0002", "5e-05"],
        "packing": ["None", "True"],
    }


def test_every_run_has_its_own_colour_in_the_picture(folder, tmp_path):
    compared = compare([folder, _logged(tmp_path / "run-002", {})])
    pixels = np.asarray(Image.open(io.BytesIO(_picture(compared))).convert("RGBA"))[..., :3].astype(int)
    for color in [(0, 114, 178), (213, 94, 0)]:
        assert (np.abs(pixels - color).max(axis=-1) < 12).sum() > 300


@pytest.mark.parametrize(
    ("configs", "told"),
    [
        ([{"rate": 2e-4, "seed": 1}, {"rate": 5e-5, "seed": 1}], ["rate 0.0002", "rate 5e-05"]),
        ([{"a": 1, "b": 1}, {"a": 1, "b": 2}, {"a": 2, "b": 2}], ["a 1, b 1", "a 1, b 2", "a 2, b 2"]),
        ([{"output_dir": "/home/me/red"}, {"output_dir": "/home/me/blue"}], ["red", "blue"]),
        ([{"seed": 1}, {"seed": 1}], ["no. 1", "no. 2"]),
    ],
)
def test_runs_of_the_same_name_are_called_by_what_tells_them_apart_and_by_no_path(tmp_path, configs, told):
    folders = [_logged(tmp_path / f"place-{at}" / "run-001", config) for at, config in enumerate(configs)]
    compared = compare([folders[0] / EVENTS_FILE, *folders[1:]])
    assert compared.names == tuple(f"run-001 · {words}" for words in told)
    shown = repr(compared) + compared._repr_mimebundle_()["text/html"]
    assert "place-" not in shown
    assert "/home" not in shown


def test_markup_in_a_setting_or_a_name_stays_text(tmp_path):
    attack = "<img src=x onerror=alert(1)>"
    folders = [_logged(tmp_path / name, {"note": text}) for name, text in [("a", attack), ("b", "plain")]]
    bundle = compare(folders, names=[attack, "b"])._repr_mimebundle_()
    tags: list[str] = []
    parser = HTMLParser()
    parser.handle_starttag = lambda tag, attrs: tags.append(tag)
    parser.feed(bundle["text/html"])
    assert set(tags) <= {"table", "thead", "tbody", "tr", "th", "td"}
    assert bundle["text/plain"].count(attack) == 2


def test_one_run_alone_and_a_name_too_few_are_refused(folder):
    with pytest.raises(ValueError, match="There is one run to compare; pass at least two"):
        compare([folder])
    with pytest.raises(ValueError, match="There are 1 names for 2 runs"):
        compare([folder, folder], names=["one"])


# ---- the script


def test_a_script_of_several_files_is_one_module_with_each_of_them_once_and_no_import_left():
    text = esm("dashboard.js")
    assert not re.findall(r"^(?:import .*|export (?!default).*)$", text, re.MULTILINE)
    assert text.count("export default { render };") == 1
    files = re.findall(r"^// (\w+\.js)$", text, re.MULTILINE)
    others = {"chat.js", "export_panel.js"}  # entrances of their own
    assert sorted(files) == sorted({path.name for path in VIEW.glob("*.js")} - others)
    assert text.index("// columns.js") < text.index("// scales.js") < text.index("// chart.js")


def test_two_files_that_declare_the_same_name_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("tunebook_widgets.esm.VIEW", tmp_path)
    (tmp_path / "one.js").write_text("export const size = 1;\n")
    (tmp_path / "two.js").write_text('import { size as other } from "./one.js";\nconst size = 2;\n')
    with pytest.raises(ValueError, match=r"Both one.js and two.js in .* declare 'size'; rename one"):
        esm("two.js")


_CONFIGS = {
    "run-001": {"learning_rate": 2e-4, "seed": 1, "output_dir": "a"},
    "run-002": {"learning_rate": 5e-5, "seed": 1, "packing": True, "output_dir": "b"},
}


def _logged(folder: Path, config: dict) -> Path:
    """A run folder with two steps in it."""
    folder.mkdir(parents=True)
    keep = event_log(folder)
    counts = {"trainable_parameters": 1, "total_parameters": 9, "train_rows": 3, "eval_rows": 0}
    keep(RunStarted(total_steps=2, model="m", awaited=False, config=config, **counts))
    for step in (1, 2):
        values = {"lr": 1e-4, "tokens_sec": 9.0, "peak_gb": 1.0, "num_tokens": 9, "grad_norm": 1.0}
        keep(StepEvent(step=step, total_steps=2, loss=3.0 - step, elapsed=1.0 * step, **values))
    return folder
