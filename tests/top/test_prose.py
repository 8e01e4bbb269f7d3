"""What the prose of the tutorials says in code is there: names behind a dot, arguments, settings, other tutorials."""

import ast
import inspect
import re
from dataclasses import fields, is_dataclass
from typing import Any

import pytest

import tunebook
import tunebook_widgets
from tests.makers.notebook_prose import prose_of_notebooks
from tunebook import FastModel, LoraConfig, Trainer, TrainingConfig, objectives, parity
from tunebook.jobs import Run

PROSE = prose_of_notebooks()
# What a name stands for in the tutorials.
NAMES: dict[str, Any] = {
    "tunebook": tunebook,
    "widgets": tunebook_widgets,
    "objectives": objectives,
    "parity": parity,
    "trainer": Trainer,
    "model": FastModel,
    "dashboard": tunebook_widgets.Dashboard,
    "run": Run,
}
NAMES |= {name: getattr(tunebook, name) for name in tunebook.__all__}
NAMES |= {name: getattr(tunebook_widgets, name) for name in tunebook_widgets.__all__}
NAMES |= {name: getattr(objectives, name) for name in objectives.__all__}
NAMES |= {name: vars(FastModel)[name] for name in ("get_peft_model", "save_pretrained_merged", "save_pretrained_gguf")}
NAMES |= {"start": Trainer.start, "find_learning_rate": Trainer.find_learning_rate, "read_rows": tunebook.read_rows}
TAKE_SETTINGS = [
    *(FastModel.from_pretrained, FastModel.get_peft_model, FastModel.save_pretrained, Trainer, Trainer.train),
    *(Trainer.start, TrainingConfig, LoraConfig, objectives.DPO, tunebook.doctor, tunebook.scores.Exam),
    *(tunebook.MultimodalPretrain, tunebook.scores.Marks.require),
]


def said() -> list[tuple[str, str]]:
    """(tutorial, what stands in backticks there), of what is Python with a dot, a call or a setting in it."""
    found = []
    for name, text in PROSE.items():
        plain = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
        for code in dict.fromkeys(" ".join(one.split()) for one in re.findall(r"`([^`]+)`", plain)):
            try:
                (statement,) = ast.parse(code).body
            except (SyntaxError, ValueError):
                continue
            if isinstance(statement, ast.Assign) or isinstance(
                getattr(statement, "value", None), ast.Call | ast.Attribute
            ):
                found.append((name, code))
    return found


@pytest.mark.parametrize(("name", "code"), said())
def test_code_in_the_prose_names_what_there_is(name, code):
    (statement,) = ast.parse(code).body
    if isinstance(statement, ast.Assign):
        (target,) = statement.targets
        assert isinstance(target, ast.Name)
        assert any(target.id in parameters(taker) for taker in TAKE_SETTINGS), code
        return
    for node in ast.walk(statement):
        if isinstance(node, ast.Call):
            taker = meant(node.func)
            for keyword in node.keywords:
                assert taker is None or keyword.arg in parameters(taker), code
        elif isinstance(node, ast.Attribute):
            meant(node)


@pytest.mark.parametrize(
    "code",
    ["trainer.look_around()", "TrainingConfig(step=3)", "start(often=2)", "widgets.Board", "model.save(x)", "a=1"],
)
def test_code_that_names_nothing_is_found(code):
    with pytest.raises(AssertionError):
        test_code_in_the_prose_names_what_there_is("", code)


def test_a_tutorial_that_is_named_is_there():
    named = {one for text in PROSE.values() for one in re.findall(r"`(\d\d_\w+)`", text)}
    assert named
    assert named <= set(PROSE)


def meant(node: ast.expr) -> Any:
    """What an expression stands for; None where only running it would tell. Fails on a name that is none."""
    match node:
        case ast.Name(id=name):
            return NAMES.get(name)
        case ast.Attribute(value=value, attr=name):
            whole = meant(value)
            if whole is None or isinstance(whole, property):
                return None
            own = {field.name for field in fields(whole)} if is_dataclass(whole) else set()
            assert hasattr(whole, name) or name in own, f"{whole} has no {name}"
            if name in own:
                return None
            return inspect.getattr_static(whole, name) if inspect.isclass(whole) else getattr(whole, name)
        case ast.Call(func=func):
            made = meant(func)
            return made if inspect.isclass(made) else None
        case _:
            return None


def parameters(taker: Any) -> set[str]:
    if isinstance(taker, staticmethod):
        taker = taker.__func__
    return set(inspect.signature(taker).parameters)
