"""The copies that `make notebooks-test` executes: one of each tutorial, with its values and claims in place."""

from ast import PyCF_ALLOW_TOP_LEVEL_AWAIT

import nbformat
import pytest

from tests.notebooks.smoke import NOTEBOOKS, SMOKES, small_copy


def test_every_tutorial_is_executed_on_a_small_scale():
    assert set(SMOKES) == {path.stem for path in NOTEBOOKS.glob("*.ipynb")}


@pytest.mark.parametrize("name", SMOKES)
def test_a_copy_has_its_smaller_values_and_its_claims_and_all_but_the_lines_it_leaves_out(name, tmp_path):
    copy = nbformat.read(small_copy(name, tmp_path), as_version=4)
    own = nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)
    for cell, whole in zip(copy.cells, own.cells, strict=True):
        gone = [] if cell.cell_type == "markdown" else SMOKES[name].left_out
        kept = [line for line in whole.source.split("\n") if not any(piece in line for piece in gone)]
        assert cell.source == "\n".join(kept)
        compile(cell.source if cell.cell_type == "code" else "", name, "exec", PyCF_ALLOW_TOP_LEVEL_AWAIT)
    about = [cell.metadata.get("nbmake", {}) for cell in copy.cells]
    assert [one["mock"] for one in about if "mock" in one] == [SMOKES[name].values]
    assert sum("post_cell_execute" in one for one in about) == len(SMOKES[name].claims) > 1
