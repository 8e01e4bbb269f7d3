"""What the kit removes by itself: what it wrote and knows as its own; a name that looks like it is not enough."""

import os
import signal
import subprocess
import sys
import tempfile

import pytest
from mlx.utils import tree_flatten

from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.machine.entries import KEPT, prune
from tunebook.machine.private import new_private_folder
from tunebook.machine.working import working_folder
from tunebook.train.kept.checkpoint import FOLDER, STATE, WEIGHTS, Checkpoint, save_checkpoint

NOTHING = Checkpoint(weights={}, optimizer_state={}, best_weights=None, identity={}, progress={})


def test_old_checkpoints_go_and_what_a_person_put_among_them_stays(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / STATE).write_text("mine")
    for step in range(1, 4):
        save_checkpoint(tmp_path, step, NOTHING, keep=None)
    folder = tmp_path / FOLDER
    (folder / "step-00002" / "notes.md").write_text("mine")
    (folder / "step-0").mkdir()
    (folder / "step-0" / WEIGHTS).write_text("mine")
    (folder / "step-00").symlink_to(elsewhere)
    save_checkpoint(tmp_path, 4, NOTHING, keep=1)
    assert sorted(path.name for path in folder.iterdir()) == ["step-0", "step-00", "step-00002", "step-00004"]
    assert (folder / "step-00002" / WEIGHTS).exists()
    assert (elsewhere / STATE).read_text() == "mine"


def test_old_entries_of_the_token_cache_go_and_other_folders_stay(tmp_path):
    entries = [tmp_path / f"{number:024x}" for number in range(KEPT + 3)]
    others = [tmp_path / name for name in ("rows", "2024", ".hidden", "a" * 23)]
    for age, path in enumerate([*others, *entries]):
        path.mkdir()
        os.utime(path, (age, age))
    prune(entries[-1])
    assert not [path for path in entries[:3] if path.exists()]
    assert all(path.exists() for path in [*entries[3:], *others])


# What a killed writer left, in a folder that nobody writes to any more

DIES = "os.kill(os.getpid(), signal.SIGKILL)"
LEAVES = {
    "the config of a run that never began": f"with private.new_private_file(run / 'config.json') as p: {DIES}",
    "a checkpoint": (
        "run.joinpath('checkpoints').mkdir()\n"
        f"with private.new_private_folder(run / 'checkpoints' / 'step-00002') as p: (p / 'w').touch(), {DIES}"
    ),
    "a checkpoint on its way out": (
        "from tunebook.machine import scratch\nold = run / 'checkpoints' / 'step-00002'\n"
        "old.mkdir(parents=True), (old / 'state.json').touch(), (old / 'weights.safetensors').touch()\n"
        f"scratch._remove = lambda path: {DIES}\natomic.remove_folder(old)"
    ),
    "a log that was being rewound": f"with private.new_private_file(run / 'events.jsonl') as p: {DIES}",
}


def killed_in(run, code):
    run.mkdir(parents=True)
    start = "import os, signal, sys\nfrom pathlib import Path\nfrom tunebook.machine import atomic, private\n"
    program = f"{start}run = Path(sys.argv[1])\n{code}"
    done = subprocess.run([sys.executable, "-c", program, str(run)], capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    assert list(run.rglob("*.partial-*"))


@pytest.mark.parametrize("what", LEAVES)
def test_the_next_run_under_the_same_folder_removes_what_a_killed_one_left(model, rows, tmp_path, what):
    killed_in(tmp_path / "run-001", LEAVES[what])
    theirs = tmp_path / "run-001" / "mine.partial-0123abcd"
    theirs.mkdir()
    (theirs / "notes.md").write_text("mine")
    new = train_one_step(model, rows, tmp_path)
    assert new.name == "run-002"
    assert list(tmp_path.rglob("*.partial-*")) == [theirs]
    assert (theirs / "notes.md").read_text() == "mine"
    assert not list(tmp_path.rglob("step-00002"))


def test_a_run_that_is_resumed_removes_it_too(model, rows, tmp_path):
    train_one_step(model, rows, tmp_path)
    killed_in(tmp_path / "run-002", LEAVES["a checkpoint"])
    assert train_one_step(model, rows, tmp_path, resume_from_checkpoint=True).name == "run-001"
    assert not list(tmp_path.rglob("*.partial-*"))


def test_what_a_live_run_is_writing_beside_a_new_one_stays(model, rows, tmp_path):
    (tmp_path / "run-001").mkdir()
    with new_private_folder(tmp_path / "run-001" / FOLDER / "step-00002") as partial:
        (partial / WEIGHTS).touch()
        train_one_step(model, rows, tmp_path)
    assert (tmp_path / "run-001" / FOLDER / "step-00002" / WEIGHTS).exists()


def train_one_step(model, rows, out, **how):
    if not tree_flatten(model.module.trainable_parameters()):
        FastModel.get_peft_model(model, r=4)
    args = TrainingConfig(max_steps=1, warmup_steps=0, output_dir=str(out))
    trainer = Trainer(model, train_dataset=rows, args=args)
    trainer.subscribe(lambda event: None, shows_progress=True)
    return trainer.train(**how).run_folder


@pytest.mark.parametrize("way", ["a push", "a model that was opened"])
def test_what_is_needed_on_the_way_is_gone_when_the_next_one_needs_something(tmp_path, monkeypatch, tiny_folder, way):
    code = {
        "a push": "with working.working_folder('push') as p: (p / 'model').touch(), os.kill(os.getpid(), 9)",
        "a model that was opened": (
            f"trusted.openable(Path({str(tiny_folder)!r}), trust_remote_code=False), os.kill(os.getpid(), 9)"
        ),
    }
    start = "import os\nfrom pathlib import Path\nfrom tunebook.machine import working\n"
    start += "from tunebook.model_files import trusted\n"
    elsewhere = os.environ | {"TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", start + code[way]], capture_output=True, env=elsewhere, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    left = [path.name for path in tmp_path.rglob("*.partial-*")]
    assert len(left) == 1
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with working_folder("other") as mine:
        (mine / "a").touch()
        assert [path.parent.name[:14] for path in tmp_path.rglob("work")] == ["other.partial-"]
        assert mine.parent.stat().st_mode & 0o077 == 0
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
