"""runs/lock.py: two never write into one run folder, and nothing but a live writer keeps another out."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from tunebook import FastModel, Trainer, TrainingConfig
from tunebook.runs.folder import run_folders
from tunebook.runs.lock import LOCK_FILE, RunInUse, RunLock

CHILD = """
import sys, time
from tunebook.runs.lock import RunLock
with RunLock(__import__("pathlib").Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def holder_of(folder):
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    child.stdout.close()
    return child


def test_a_folder_is_held_as_long_as_its_holder_lives_and_the_refusal_names_it(tmp_path):
    child = holder_of(tmp_path)
    with pytest.raises(RunInUse, match=rf"is being written to by process {child.pid} since 20.*Wait for .*, then res"):
        RunLock(tmp_path)
    child.send_signal(signal.SIGKILL)
    child.wait()
    with RunLock(tmp_path) as lock:
        assert lock.notice is None


def test_a_trainer_of_the_same_process_is_kept_out_too_until_the_first_is_done(tmp_path):
    with RunLock(tmp_path), pytest.raises(RunInUse, match=f"process {os.getpid()}, this one,"):
        RunLock(tmp_path)
    RunLock(tmp_path).release()


def test_a_lock_that_was_copied_with_its_folder_holds_nothing(tmp_path):
    with RunLock(tmp_path / "."):
        shutil.copytree(tmp_path, tmp_path.with_name("copy"))
        RunLock(tmp_path.with_name("copy")).release()
    assert json.loads((tmp_path.with_name("copy") / LOCK_FILE).read_text())["pid"] == os.getpid()


def test_a_forked_child_neither_has_its_parents_lock_nor_ends_it(tmp_path):
    read, write = os.pipe()
    with RunLock(tmp_path):
        child = os.fork()
        if not child:
            try:
                RunLock(tmp_path)
            except RunInUse:
                os.write(write, b"refused")
            os._exit(0)
        os.waitpid(child, 0)
        assert os.read(read, 20) == b"refused"
        with pytest.raises(RunInUse):
            RunLock(tmp_path)
    os.close(read)
    os.close(write)


def test_a_child_that_outlives_a_killed_parent_does_not_keep_the_folder(tmp_path):
    code = CHILD.replace('print("held", flush=True)', "import os; os.fork() or print('held', flush=True)")
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, process_group=0)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"held\n"
    parent.kill()
    parent.wait()
    RunLock(tmp_path).release()
    os.killpg(parent.pid, signal.SIGKILL)
    parent.stdout.close()


@pytest.mark.parametrize("said", ["", "{", "[]", '{"pid": "x"}', "\0" * 9000, '{"pid": 1, "host": 2, "since": 3}'])
def test_whatever_the_file_says_the_refusal_is_a_sentence(tmp_path, said):
    with RunLock(tmp_path):
        (tmp_path / LOCK_FILE).write_text(said)
        with pytest.raises(RunInUse, match=r"is being written to by (another )?process") as refused:
            RunLock(tmp_path)
    assert "\n" not in str(refused.value)


def test_where_no_lock_can_be_taken_the_run_is_told_and_goes_on(tmp_path):
    (tmp_path / LOCK_FILE).mkdir()
    notice = RunLock(tmp_path).notice
    assert notice is not None
    assert "cannot be held for this run alone (Is a directory)" in notice


# Through the trainer


@pytest.fixture
def trained(tiny_folder, rows, tmp_path):
    """A function that makes trainers of one run, which was stopped after two of four steps."""

    def trainer():
        model, _ = FastModel.from_pretrained(tiny_folder, max_seq_length=128)
        FastModel.get_peft_model(model, r=2)
        made = Trainer(model, train_dataset=rows, args=TrainingConfig(max_steps=4, output_dir=str(tmp_path)))
        made.subscribe(lambda event: None, shows_progress=True)
        return made

    first = trainer()
    first.add_step_callback(lambda step, *_: first.stop() if step == 2 else None)
    first.train()
    return trainer


def test_a_second_resume_is_refused_and_changes_nothing_in_the_folder(trained, tmp_path):
    child = holder_of(run_folders(tmp_path)[0])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(RunInUse):
        trained().train(resume_from_checkpoint=True)
    assert before == {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    child.kill()
    child.wait()
    assert len(trained().train(resume_from_checkpoint=True).steps) == 4


def test_the_same_trainer_resumes_its_own_run_and_a_refused_resume_holds_nothing(trained, tmp_path):
    trainer = trained()
    trainer.train(resume_from_checkpoint=True)
    trainer.train(resume_from_checkpoint=True)
    other = trained()
    other.config = TrainingConfig(max_steps=9, output_dir=str(tmp_path))
    with pytest.raises(ValueError, match="of another run"):
        other.train(resume_from_checkpoint=True)
    RunLock(run_folders(tmp_path)[0]).release()


def test_a_run_holds_its_folder_from_the_start(trained, tmp_path):
    trainer, refused = trained(), []

    def intrude(step, *_):
        try:
            RunLock(run_folders(tmp_path)[-1])
        except RunInUse as error:
            refused.append(error)

    trainer.add_step_callback(intrude)
    trainer.train()
    assert len(refused) == 4
