"""Records and functions that read what they are given by the types they declare, and answer what they do not take."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

from .foreign_names import NAMES
from .foreign_values import A_PAIR, VALUES
from .meanings import documented
from .values import Unfit, bare, complaint, meaning, read

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_NEAR = 0.75  # how alike two names are, of 1, for one to be taken for the other misspelt
_A_PART = 4  # letters, at least, of a name that is taken for a part of another
_MOST_NAMED = 24  # names that are listed where none is near


def record(cls: type[T]) -> type[T]:
    """A dataclass whose values are read by the types of its fields before it checks itself, and are in its docstring.

    Raises TypeError for names it has not, ValueError with every value that a field does not take.
    """
    name = cls.__name__
    known = {field.name: field for field in fields(cls)}  # pyright: ignore[reportArgumentType] - it is a dataclass
    kinds = {field: about.type for field, about in known.items()}
    made: Callable[..., None] = cls.__init__
    made.__annotations__ = {field: bare(kind) for field, kind in kinds.items()}

    @wraps(made)
    def __init__(self: Any, *args: Any, **given: Any) -> None:
        _refuse_unknown(name, given, list(kinds))
        made(self, *args, **_read_all(name, given, kinds))

    type.__setattr__(cls, "__init__", __init__)
    defaults = {field: about.default for field, about in known.items() if about.default is not MISSING}
    cls.__doc__ = documented(cls.__doc__, "Settings", kinds, defaults)
    return cls


def call(name: str, *, of: type | None = None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Have a function's arguments read by their annotations, and in its docstring; `name` is what messages call it.

    A parameter without a meaning is as the field of the same name of the record `of`. Raises as `record` does.
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        parameters = inspect.signature(function).parameters
        of_record = {} if of is None else {field.name: field.type for field in fields(of)}
        kinds = {
            parameter: of_record[parameter]
            if parameter in of_record and not meaning(about.annotation)
            else _kind(about)
            for parameter, about in parameters.items()
        }
        by_position = [each.name for each in parameters.values() if each.kind is each.POSITIONAL_OR_KEYWORD]
        defaults = {each.name: each.default for each in parameters.values() if each.default is not each.empty}
        function.__annotations__ = {key: bare(kind) for key, kind in function.__annotations__.items()}

        run = cast("Callable[..., R]", function)

        @wraps(function)
        def called(*args: Any, **given: Any) -> R:
            _refuse_unknown(name, given, [known for known in kinds if known != "self"])
            _refuse_positions(name, args[len(by_position) :], kinds, by_position)
            here = dict(zip(by_position, args, strict=False))
            taken = _read_all(name, {**here, **given}, kinds)
            return run(*(taken[each] for each in here), **{each: taken[each] for each in given})

        called.__doc__ = documented(function.__doc__, "Arguments", kinds, defaults)
        return cast("Callable[P, R]", called)

    return decorate


def elsewhere(taker: str, name: str, value: Any) -> str | None:
    """What is said to people who give `taker` a name that other kits have for `value`; None: no kit known has it."""
    foreign = NAMES.get(taker, {}).get(name)
    return None if foreign is None else _filled(foreign, name, value)


def _kind(about: inspect.Parameter) -> Any:
    """The annotation of a parameter; one in quotation marks is not looked at."""
    return Any if about.annotation is about.empty or isinstance(about.annotation, str) else about.annotation


def _refuse_unknown(taker: str, given: Mapping[str, Any], known: list[str]) -> None:
    answers = [_answer(taker, name, value, known) for name, value in given.items() if name not in known]
    if answers:
        raise TypeError("\n".join(answers))


def _answer(taker: str, name: str, value: Any, known: list[str]) -> str:
    """What to write in place of a name that is not taken."""
    foreign = elsewhere(taker, name, value)
    if foreign is not None:
        return f"{taker} takes no {name}: {foreign}."
    near = difflib.get_close_matches(name, known, n=1, cutoff=_NEAR)
    if near := near or [each for each in known if len(name) >= _A_PART and name in each]:
        return f"{taker} takes no {name}; did you mean {' or '.join(near)}?"
    if len(known) > _MOST_NAMED:
        return f"{taker} takes no {name}; help({taker}) says what it takes."
    return f"{taker} takes no {name}; it takes {', '.join(known)}."


def _filled(answer: str, name: str, value: Any) -> str:
    if answer.count("`") == 2 and answer[0] == answer[-1] == "`":
        answer = f"write {answer}"
    return answer.replace("{value!r}", repr(value)).replace("{name}", name)


def _refuse_positions(taker: str, beyond: tuple[Any, ...], kinds: Mapping[str, Any], by_position: list[str]) -> None:
    """Raise TypeError for values that came without their names and need them."""
    if not beyond:
        return
    foreign = NAMES.get(taker, {})
    by_name = [name for name in kinds if name not in by_position]
    if isinstance(beyond[0], str) or "tokenizer" not in foreign:
        said = f"write the names of the others, which are {', '.join(by_name)}" if by_name else "leave the others out"
    else:
        said = _filled(foreign["tokenizer"], "tokenizer", beyond[0])
    takes = ", ".join(name for name in by_position if name != "self") or "nothing"
    raise TypeError(f"{taker} takes {takes} by position: {said}.")


def _read_all(taker: str, given: Mapping[str, Any], kinds: Mapping[str, Any]) -> dict[str, Any]:
    """The values as their types have them. Raises ValueError with everything that is wrong with them."""
    taken, wrong = {}, []
    for name, value in given.items():
        if name == "model" and isinstance(value, tuple):
            wrong.append(f"{taker}.model is a pair; {A_PAIR}.")
            continue
        foreign = VALUES.get(taker, {}).get(name, {})
        # Only where it is asked about: the text of a data set is as long as the data set.
        if foreign and (known := value if isinstance(value, int | str) else str(value)) in foreign:
            wrong.append(f"{taker}.{name} is {value!r}; {_filled(foreign[known], name, value)}.")
            continue
        try:
            taken[name] = read(value, kinds[name])
        except Unfit:
            wrong.append(complaint(f"{taker}.{name}", value, kinds[name]))
    if wrong:
        raise ValueError("\n".join(wrong))
    return taken
