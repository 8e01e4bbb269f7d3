"""The notebooks as files: paired with their sources, with no machinery in them and nothing private left behind."""

import ast
import re
from pathlib import Path

import jupytext
import nbformat
import pytest

from tests.notebooks.executed import note_of
from tunebook.parity import FAULTS

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
ALL = sorted(NOTEBOOKS.glob("*.ipynb"))
FOR_A_PERSON = "skip-execution"  # the tag of cells that nbclient, and so nbmake, leaves out


# Numbers of an explanation, which no cell comes to.
EXPLAINED = {"2.3", "0.7", "5.57", "5.57e-07", "2.2", "4.46", "0.05"}


@pytest.fixture(params=ALL, ids=lambda path: path.name)
def path(request):
    return request.param


@pytest.fixture
def notebook(path):
    return nbformat.read(path, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def is_for_a_person(cell):
    return FOR_A_PERSON in cell.metadata.get("tags", [])


def printed(cell):
    """The text of all outputs of a cell."""
    return "\n".join(output.get("text") or output.data["text/plain"] for output in cell.outputs)


def lab_cells():
    """The cells of the parity lab, and the number of the one that says what was planted."""
    cells = nbformat.read(NOTEBOOKS / "03_parity_lab.ipynb", as_version=4).cells
    [told] = [number for number, cell in enumerate(cells) if cell.source == "print(list(parity.FAULTS)[SUSPECT])"]
    return cells, told


def test_every_source_has_its_notebook_and_every_notebook_its_source():
    sources = {path.stem for path in (NOTEBOOKS / "src").glob("*.py")}
    assert sources == {path.stem for path in ALL} != set()


def test_a_notebook_and_its_source_hold_the_same_cells(path, notebook):
    source = jupytext.read(NOTEBOOKS / "src" / f"{path.stem}.py")
    cells = [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in notebook.cells]
    assert cells == [(cell.cell_type, cell.source, cell.metadata.get("tags", [])) for cell in source.cells]


def test_there_is_one_parameters_cell_and_it_holds_plain_values(notebook):
    [parameters] = [cell for cell in code(notebook) if "parameters" in cell.metadata.get("tags", [])]
    for statement in ast.parse(parameters.source).body:
        assert isinstance(statement, ast.Assign)
        ast.literal_eval(statement.value)


def test_no_cell_defines_a_function_or_class(notebook):
    for cell in code(notebook):
        tree = ast.parse(cell.source, mode="exec", type_comments=False)
        assert not [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)], cell.source


def test_a_sentence_stands_before_the_code_of_each_section(notebook):
    for above, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        if above.cell_type == "markdown" and cell.cell_type == "code":
            assert re.search(r"\w+[^.!?]*[.!?]", above.source.split("\n", 1)[-1]), above.source


def test_the_committed_notebook_was_executed_and_shows_its_run(notebook):
    assert all(cell.execution_count for cell in code(notebook) if not is_for_a_person(cell))
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert [output for output in outputs if "image/png" in output.get("data", {})]


def test_no_widget_state_and_no_path_of_a_machine_is_left_in_the_file(path, notebook):
    assert "widgets" not in notebook.metadata
    mimes = {mime for cell in code(notebook) for output in cell.outputs for mime in output.get("data", {})}
    assert "application/vnd.jupyter.widget-view+json" not in mimes
    assert path.stat().st_size < 500_000
    assert not re.search(r"/(home|root|Users|work)/", path.read_text())


def test_what_a_notebook_shows_is_of_its_cells_and_of_this_version(path, notebook):
    anew = f"the cells of {path.stem} changed since they were executed; run: make notebook NOTEBOOK={path.stem}"
    assert notebook.metadata.get("tunebook") == note_of(notebook), anew


def test_a_number_in_the_prose_is_one_that_the_notebook_shows_or_is_told(path, notebook):
    shown = " ".join(" ".join([cell.source, *map(str, cell.outputs)]) for cell in code(notebook))
    prose = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    numbers = {said.replace(" ", "") for said in re.findall(r"(?<![\w.])\d+\.\d+(?:e-?\d+)?|\d+ ?%", prose)}
    assert not {number for number in numbers if number not in shown} - EXPLAINED


def test_the_readme_lists_every_notebook_under_its_title(path, notebook):
    title = notebook.cells[0].source.splitlines()[0].removeprefix("# ")
    readme = (NOTEBOOKS.parent / "README.md").read_text()
    assert f"| [{path.stem}](notebooks/{path.name}) | {title} |" in readme


def test_a_panel_that_needs_a_person_has_a_picture_above_it_and_no_output(notebook):
    for above, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        if cell.cell_type == "code" and is_for_a_person(cell):
            assert not cell.outputs
            [(said, picture)] = re.findall(r"!\[([^\]]+)\]\(([^)]+)\)", above.source)
            assert len(said.split()) > 5
            assert (NOTEBOOKS / picture).is_file()


def test_nothing_above_its_solution_gives_the_puzzle_of_the_parity_lab_away():
    cells, told = lab_cells()
    [planted] = printed(cells[told]).split("\n")[:1]
    above = "\n".join(cell.source + "".join(map(str, cell.get("outputs", []))) for cell in cells[:told])
    assert planted in FAULTS
    assert planted not in above


def test_the_explained_suspect_is_the_one_that_was_found():
    cells, told = lab_cells()
    sentence = r"parts from its references at the stage (\w+): .*?: ([\d.]+) relative"
    [(stage, size)] = re.findall(sentence, printed(cells[told - 2]))
    assert stage == FAULTS["mean of means"].stage
    assert printed(cells[told]).startswith("mean of means")
    assert f"too little by {size} " in cells[told + 1].source.replace("\n", " ")


def test_the_tutorial_on_exams_shows_what_was_gained_and_a_run_that_its_loss_does_not_tell_of():
    notebook = nbformat.read(NOTEBOOKS / "06_did_it_help.ipynb", as_version=4)
    said = "\n".join(printed(cell) for cell in code(notebook))
    after = dict(re.findall(r"^(\S.*?): json_match: .*; 0 -> ([\d.]+),", said, re.MULTILINE))
    files = {"merged 16-bit", "q8_0", "q4_k_m", "merged 4-bit"}
    assert set(after) == files | {"tuned"}
    assert all(float(after[name]) >= 0.5 for name in files - {"merged 4-bit"})
    assert float(after["merged 4-bit"]) < float(after["tuned"]) / 2  # as the prose says
    losses = [float(loss) for loss in re.findall(r"^step +\d+: held-out loss ([\d.]+), english", said, re.MULTILINE)]
    assert len(losses) > 2
    assert max(losses[1:]) < losses[0] / 2
    [lost] = re.findall(r"^harsh: gained .*?; lost (.*?)[;.]", said, re.MULTILINE)
    assert "english" in lost


def test_the_tutorial_on_preferences_shows_that_its_preference_was_learnt():
    notebook = nbformat.read(NOTEBOOKS / "05_preferences.ipynb", as_version=4)
    said = "\n".join(printed(cell) for cell in code(notebook))
    [accuracy] = re.findall(r"rewards/accuracies on the held-out pairs: (\d+)%", said)
    assert int(accuracy) >= 90
    scores = re.findall(r"^DPO: one_sentence: .* better, .*; ([\d.]+) -> ([\d.]+),", said, re.MULTILINE)
    assert scores
    for before, after in scores:
        assert float(before) < 0.8 < 0.9 <= float(after)
