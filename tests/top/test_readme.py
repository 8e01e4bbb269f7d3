"""Every block of code in README and CONTRIBUTING is run here on tiny models, and every command is one there is.

Commands in the prose of the tutorials too; what else stands there is for `test_prose.py`.

A block runs as it stands, behind the first one, but for names of models and the few words in SAID_HERE.
"""

import json
import re
import time
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from tests.makers.lm_eval_tasks import write_tasks
from tests.makers.notebook_prose import prose_of_notebooks
from tests.makers.tiny_vision import noise_images, tiny_vision_folder
from tunebook import samples
from tunebook.__main__ import main
from tunebook.events import StepEvent
from tunebook.scores.marks import ScoreTooLow

ROOT = Path(__file__).parents[2]
PAGES = {name: (ROOT / name).read_text() for name in ("README.md", "CONTRIBUTING.md")}
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGES["README.md"], re.DOTALL | re.MULTILINE)
SIGNATURE = [block for block in BLOCKS if block.startswith("fn(")]
# What a page says -> what is run here in its place.
SAID_HERE = {
    '"HuggingFaceTB/SmolLM2-135M-Instruct"': "tiny_text",
    '"HuggingFaceTB/SmolVLM-256M-Instruct"': "tiny_vision",
    ", ...]": "] * 4",
    '"my-model.gguf"': "exported_gguf",
    '["arc_easy"], limit=100': '["tiny_choice"], include_path=tasks, limit=4',
    "tuned.require(better_than=base, by=0.05)": "with raises(ScoreTooLow): tuned.require(better_than=base, by=0.05)",
    "scores.general()": "scores.general(rows=2)",
    "run  # A run": "hears(run)  # A run",
}


@pytest.fixture(scope="module")
def page(tmp_path_factory, tiny_folder):
    """The folder a reader works in, and the names there are after the first block."""
    folder = tmp_path_factory.mktemp("reader")
    rows = [
        {"messages": [{"role": "user", "content": f"Say {n}"}, {"role": "assistant", "content": "word " * (n % 4 + 1)}]}
        for n in range(24)
    ]
    (folder / "images").mkdir()
    for number, image in enumerate(noise_images(2)):
        image.save(folder / "images" / f"{number}.png")
    documents = [{"text": f"A picture: <image> of {number}.", "images": [f"{number}.png"]} for number in range(2)]
    (folder / "documents.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents * 3))
    return folder, {
        "tiny_text": str(tiny_folder),
        "tiny_vision": str(tiny_vision_folder(folder / "vision", "smolvlm")),
        "tasks": str(write_tasks(tmp_path_factory.mktemp("tasks"))),
        "raises": pytest.raises,
        "ScoreTooLow": ScoreTooLow,
        "hears": _wait_until_it_runs,
        "rows": rows,
    }


@pytest.mark.parametrize("number", [place for place, block in enumerate(BLOCKS) if block not in SIGNATURE])
def test_a_block_of_the_readme_runs(number, page, monkeypatch):
    folder, names = page
    monkeypatch.chdir(folder)
    monkeypatch.setenv("TUNEBOOK_UI", "off")
    monkeypatch.setattr(samples, "python_docs", lambda: names["rows"])  # the real ones are longer than 320 such tokens
    for gguf in folder.glob("gguf/*q8_0*.gguf"):
        names["exported_gguf"] = str(gguf)
    here = names if number == 0 else dict(names)
    exec(compile(_here(BLOCKS[number]), f"README.md, block {number}", "exec"), here)
    names |= {name: here[name] for name in ("exam", "base", "tuned") if name in here}  # which a later section shows


def test_every_word_that_is_replaced_stands_in_the_readme():
    assert not [said for said in SAID_HERE if not any(said in block for block in BLOCKS)]


def test_the_callback_takes_what_the_page_says():
    (block,) = SIGNATURE
    assert (
        block.strip().removeprefix("fn(").removesuffix(")").split(", ")
        == [field.name for field in fields(StepEvent)][:9]
    )


def _wait_until_it_runs(run) -> None:
    while not any(isinstance(event, StepEvent) for event in run.events):
        time.sleep(0.02)
        run.poll()


def _here(block: str) -> str:
    for said, run in SAID_HERE.items():
        block = block.replace(said, run)
    return block


def commands() -> list[str]:
    """What the pages tell to type: the lines of blocks of no other language, and what stands in backticks."""
    found = []
    for text in (*PAGES.values(), *prose_of_notebooks().values()):
        for block in re.findall(r"^```(?:bash)?\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            found += [line.partition(" #")[0].strip() for line in block.replace("\\\n", " ").splitlines()]
        prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
        found += [" ".join(said.split()) for said in re.findall(r"`([^`]+)`", prose)]
    first = r"(make|pip|mlx\.launch|python|\.venv/bin/\w+) "
    return sorted({line for line in found if re.match(first, line)})


@pytest.mark.parametrize("command", commands())
def test_a_command_is_one_there_is(command, capsys):
    program, *words = command.replace("'", "").split()
    if program == "make":
        assert re.search(rf"^{re.escape(words[0])}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        for extra in re.findall(r"\[(\w+)\]", command):
            assert extra in extras
    elif words[:2] == ["-m", "tunebook"]:
        with pytest.raises(SystemExit, match="0"):
            main([*words[2:3], "--help"])
        said = capsys.readouterr().out
        assert not [word for word in words if word.startswith("--") and word not in said]
    elif words[0] == "-m":
        assert words[1] in ("pytest", "tunebook.parity", "tunebook.compat.mlx_lm")
        assert not [word for word in words[2:] if word.startswith("tests") and not (ROOT / word).exists()]
    elif program == "python":
        assert (ROOT / words[0]).is_file()
    else:
        assert program == "mlx.launch"
