"""The plan of the house: which wings there are, who may import whom, and by which doors. Read from the code.

A wing is a folder of `kit/tunebook`. To let one import another, add it to its line; to let outsiders use one more file
of a wing, name the file in backticks behind `Doors:` in the docstring of the wing's `__init__.py`.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.spread import GROUPS, LONG

ROOT = Path(__file__).parents[1]
KIT = ROOT / "kit" / "tunebook"
WIDGETS = ROOT / "widgets" / "tunebook_widgets"
TESTS = Path(__file__).parent

# A wing, and the wings it may import. Everybody may import `config` and `events`, and the records use `settings`.
TABLE = """
    settings    :
    machine     :
    model_files : machine
    data        : machine
    gguf        : machine model_files
    runs        : machine
    models      : machine model_files data gguf
    fast        : machine models
    samples     : models
    tokens      : machine data models
    objectives  : settings machine data models fast
    train       : machine data runs models fast tokens objectives
    memory      : machine data models fast tokens objectives train
    export      : machine model_files data gguf runs models tokens train
    scores      : machine data models fast objectives export
    jobs        : machine data runs models tokens objectives train memory export scores
    rate_finder : machine data runs models jobs
    parity      : machine model_files data gguf models samples tokens objectives train export
    compat      : settings machine data models objectives
"""
ALLOWED = {
    wing.strip(): set(others.split()) for wing, others in (line.split(":") for line in TABLE.strip().splitlines())
}
RECORDS = {"config", "events"}  # `events` is a folder, for its JSON lies beside it, and still a record: it has no doors
# What people hold; they import whatever they put together, and no wing imports them.
TOP = {"__init__", "__main__", "fast_model", "trainer", "responses", "bridges", "check_up", "demo"}
# The widgets that show a model; all others know a run by its events and its folder alone.
SHOW_A_MODEL = {
    *("panels/chat.py", "panels/fit.py", "panels/export_panel.py", "tokens/token_view.py"),
    *("scores/score_view.py", "scores/token_losses.py"),
}

# Where files lie that are named here and are other people's.
UPSTREAM = (
    "mlx/",
    "mlx_lm/",
    "mlx_vlm/",
    "transformers/",
    "bitsandbytes/",
    "llama.cpp/",
    "ggml/",
    "stanford_alpaca/",
    "trl/",
    "lm_eval/",
)

Module = str  # dotted, below tunebook; "" is the package itself


def modules() -> dict[Module, Path]:
    """The files of the kit by the name they are imported by."""
    return {name_of(path): path for path in sorted(KIT.rglob("*.py"))}


def name_of(path: Path) -> Module:
    parts = path.relative_to(KIT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, known: dict[Module, Path]) -> Iterator[Module]:
    """The modules of the kit a file imports, wherever in it the import stands, but not those for types alone."""
    package = path.relative_to(KIT).parent.parts if path.is_relative_to(KIT) else ()
    tree = ast.parse(path.read_text())
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name.removeprefix("tunebook.") for alias in node.names if alias.name[:9] == "tunebook.")
        if not isinstance(node, ast.ImportFrom):
            continue
        if node.level and path.is_relative_to(KIT):
            base = package[: len(package) - node.level + 1]
            source = ".".join([*base, *(node.module.split(".") if node.module else [])])
        elif not node.level and (node.module or "").split(".")[0] == "tunebook":
            source = (node.module or "").partition(".")[2]
        else:
            continue
        for alias in node.names:
            inner = f"{source}.{alias.name}".strip(".")
            yield inner if inner in known else source


def wing_of(module: Module) -> str:
    return module.split(".")[0]


def doors(wing: str) -> set[Module]:
    """The files of a wing that outsiders may import: the wing itself, and what its docstring lists."""
    said = ast.get_docstring(ast.parse((KIT / wing / "__init__.py").read_text())) or ""
    listed = said.partition("Doors:")[2].partition("\n\n")[0]
    return {wing, *(f"{wing}.{door.replace('/', '.')}" for door in re.findall(r"`([\w/]+)`", listed))}


KNOWN = modules()
INSIDE = [module for module in KNOWN if wing_of(module) in ALLOWED]


def test_every_folder_of_the_kit_is_a_wing_in_the_table_and_every_wing_is_there():
    assert {path.parent.name for path in KIT.glob("*/__init__.py")} == {*ALLOWED, "events"}
    assert {path.stem for path in KIT.glob("*.py")} == TOP | RECORDS - {"events"}


def test_a_record_knows_no_wing_but_settings():
    used = {wing_of(other) for name in KNOWN if wing_of(name) in RECORDS for other in imports(KNOWN[name], KNOWN)}
    assert used - RECORDS == {"settings"}


def test_a_wing_uses_only_wings_above_it_in_the_table():
    above = set()
    for wing, others in ALLOWED.items():
        assert others <= above, f"{wing} uses {sorted(others - above)}, which stand below it"
        above.add(wing)


@pytest.mark.parametrize("module", INSIDE)
def test_a_file_imports_only_what_its_wing_may(module):
    wing = wing_of(module)
    used = {wing_of(other) for other in imports(KNOWN[module], KNOWN)} - {wing} - RECORDS
    if wing == "compat":  # it puts other kits' names into what people hold
        used -= {""}
    assert used <= ALLOWED[wing], f"{module} imports {sorted(used - ALLOWED[wing])}"


def test_no_permission_is_unused():
    for wing, others in ALLOWED.items():
        files = [KNOWN[module] for module in INSIDE if wing_of(module) == wing]
        used = {wing_of(other) for file in files for other in imports(file, KNOWN)}
        assert others <= used, f"{wing} may import {sorted(others - used)} and does not"


def test_outsiders_enter_a_wing_only_by_its_doors_and_every_door_is_used():
    entered: dict[str, set[Module]] = {wing: set() for wing in ALLOWED}
    outside = [*KNOWN.values(), *WIDGETS.rglob("*.py")]
    for path in outside:
        own = path.relative_to(KIT).parts[0] if path.is_relative_to(KIT) else ""
        for module in imports(path, KNOWN):
            if wing_of(module) in ALLOWED and wing_of(module) != own:
                entered[wing_of(module)].add(module)
                assert module in doors(wing_of(module)), f"{path} enters {module}, which is no door"
    for wing, used in entered.items():
        unused = doors(wing) - used - {wing}
        assert not unused, f"nobody outside {wing} uses {sorted(unused)}"


def test_no_files_import_one_another_in_a_circle():
    # The contents page of a package that hands on names is entered by everybody who imports a file below it.
    graph = {module: set(imports(path, KNOWN)) - {module} for module, path in KNOWN.items()}
    done: set[Module] = set()

    def visit(module: Module, trail: tuple[Module, ...]) -> None:
        assert module not in trail, " -> ".join([*trail[trail.index(module) :], module])
        if module not in done:
            for other in sorted(graph.get(module, ())):
                visit(other, (*trail, module))
            done.add(module)

    for module in sorted(graph):
        visit(module, ())


def test_the_kit_never_imports_the_widgets():
    assert not [path for path in KIT.rglob("*.py") if "tunebook_widgets" in path.read_text()]


def test_only_widgets_that_show_a_model_need_more_of_the_kit_than_events_and_run_folders():
    for path in sorted(WIDGETS.rglob("*.py")):
        if str(path.relative_to(WIDGETS)) not in SHOW_A_MODEL:
            used = {wing_of(module) for module in imports(path, KNOWN)}
            assert used <= {"events", "runs", "machine"}, path.name


def test_only_parity_imports_torch():
    for path in KIT.rglob("*.py"):
        names = {
            alias.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        assert "torch" not in names or path.relative_to(KIT).parts[0] == "parity", path


@pytest.mark.parametrize("wing", ["train", "tokens", "objectives"])
def test_past_the_loader_nobody_asks_what_kind_of_model_it_is(wing):
    assert not [path.name for path in (KIT / wing).rglob("*.py") if "vision" in path.read_text().lower()]


def test_a_folder_is_taken_in_at_a_glance():
    folders = [path for root in (KIT, WIDGETS, TESTS) for path in (root, *root.rglob("*")) if path.is_dir()]
    for folder in folders:
        entries = [entry for entry in folder.iterdir() if entry.name != "__pycache__"]
        most = 30 if folder in (KIT, TESTS) else 19  # a wing each, and the files beside them
        assert len(entries) <= most, folder


def test_no_file_is_longer_than_300_lines_and_no_function_longer_than_60():
    for path in (*KIT.rglob("*.py"), *WIDGETS.rglob("*.py")):
        text = path.read_text()
        assert len(text.splitlines()) <= 300, path
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno is not None:
                assert node.end_lineno - node.lineno < 60, f"{path}: {node.name}"


def test_the_tests_lie_as_the_wings_do_and_no_file_of_them_is_longer_than_350_lines():
    others = {"browser", "frozen", "makers", "notebooks", "top", "widgets"}
    assert {path.parent.name for path in TESTS.glob("*/__init__.py")} - others <= {*ALLOWED}
    for path in TESTS.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 350, path


def prose(path: Path) -> str:
    """The docstrings and comments of a Python file; of any other all there is."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return text
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    said = [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(text)) if isinstance(node, documented)]
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return "\n".join([*said, *(token.string for token in tokens if token.type == tokenize.COMMENT)])


def places(path: Path) -> Iterator[Path]:
    """The folders from which `path` may name a file: those around it, for a test those it tests, and the packages."""
    for folder in path.parents:
        if folder.is_relative_to(TESTS):
            yield KIT / folder.relative_to(TESTS)
        if folder.is_relative_to(ROOT):
            yield folder
    yield from (KIT, WIDGETS)


def test_every_file_that_a_text_or_a_comment_names_is_there():
    folders = (KIT, WIDGETS, TESTS, ROOT / "bench", ROOT / "notebooks" / "src")
    inside = [
        path
        for folder in folders
        for path in folder.rglob("*")
        if path.suffix in (".py", ".js", ".css", ".md") and ".venv" not in path.parts  # the peers' of bench/peers.py
    ]
    missing = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in (*inside, *(ROOT / name for name in ("README.md", "Makefile", "pyproject.toml")))
        for name in re.findall(r"[\w.][\w./-]*\.(?:py|js|css|md|ipynb)\b", prose(path))
        if not name.startswith(UPSTREAM) and not any((place / name).is_file() for place in places(path))
    ]
    assert not missing, "name a file from its wing or from the kit, and other people's from their package"


def test_every_file_that_is_spread_over_the_workers_by_its_name_is_there():
    names = {path.stem for path in TESTS.rglob("test_*.py")}
    assert {*LONG, *(name for group in GROUPS.values() for name in group)} <= names


def test_tiny_models_keep_the_names_that_programs_outside_know():
    assert all(find_spec(f"tests.{name}") for name in ("tiny", "tiny_vision"))
