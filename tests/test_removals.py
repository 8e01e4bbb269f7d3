"""What the kit removes by itself: what it wrote and knows as its own; a name that looks like it is not enough."""

import os

from tunebook.checkpoint import FOLDER, STATE, WEIGHTS, Checkpoint, save_checkpoint
from tunebook.token_cache import KEPT, prune

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
