"""Chat templates rendered within limits: a template's source and its context go in, text and marked spans come out.

A template comes from whoever made the model. jinja2's sandbox keeps it from the machine; this one keeps it from the
machine's time and memory too. All that can grow is charged for before it does: operators, methods, filters, output.
What templates may use beside Jinja's own is as transformers (5.24, utils/chat_template_utils.py) documents it.
"""

import json
import re
import time
from collections.abc import Callable, ItemsView, Iterable, KeysView, Mapping, Sequence, ValuesView
from contextvars import ContextVar
from datetime import datetime
from functools import lru_cache, wraps
from types import BuiltinMethodType, MethodType
from typing import Any, NoReturn, final

from jinja2 import Template, nodes
from jinja2.exceptions import TemplateError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter
from jinja2.utils import Namespace

Span = tuple[int, int]  # first character and one past the last

SECONDS = 1.0  # of processor time for one conversation, and one more for each million characters of it
CHARACTERS = 32_000_000  # that may be written, copied or compared for one, and 16 more for each it has
LONGEST_SOURCE = 1_000_000  # characters; the longest released template has some 30,000
MOST_BITS = 16_384  # of a whole number

# What a template can raise by itself, besides the errors of Jinja.
FAILURES = (TemplateError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class TemplateLimit(ValueError):
    """A template that would take more than it may; the message says what, to go on a sentence with."""


class NotJinja(ValueError):
    """A source that cannot be made a template; the message says why, to end a sentence with."""


@lru_cache(maxsize=32)
def compiled(source: str) -> Template:
    """The template of a source. Raises NotJinja."""
    if len(source) > LONGEST_SOURCE:
        raise NotJinja(f"it has {len(source)} characters, more than {LONGEST_SOURCE}")
    token = _budget.set(_Budget(0))  # constants are computed now
    try:
        tree = _SANDBOX.parse(source)
        _meter(tree)
        tree.set_environment(_SANDBOX)
        return Template.from_code(_SANDBOX, _SANDBOX.compile(tree), _SANDBOX.make_globals(None))
    except (*FAILURES, SyntaxError, MemoryError) as error:  # the last two are Python's, of what Jinja makes for it
        raise NotJinja(f"it cannot be read as Jinja ({type(error).__name__}: {error})") from error
    finally:
        _budget.reset(token)


def rendered(template: Template, context: Mapping[str, Any], *, size: int) -> tuple[str, list[Span]]:
    """The text of a context of `size` characters, and the spans between its {% generation %} markers, in order.

    Raises TemplateLimit, and what FAILURES lists for a template that refuses.
    """
    budget = _Budget(size)
    token, blocks = _budget.set(budget), []
    try:
        for block in template.generate(context):
            blocks.append(block)
            budget.written += len(block)
        return "".join(blocks), budget.spans
    except MemoryError as error:
        raise TemplateLimit("takes more memory than there is") from error
    finally:
        _budget.reset(token)


@final
class _Budget:
    """What is left of the limits while one conversation is rendered."""

    def __init__(self, size: int):
        self.characters = CHARACTERS + 16 * size
        self.seconds = SECONDS + size / 1e6
        self.until = time.thread_time() + self.seconds
        self.written = 0  # characters
        self.spans: list[Span] = []
        self._left, self._charges = self.characters, 0

    def charge(self, characters: int) -> None:
        """Take off what is about to be made. Raises TemplateLimit."""
        self._left -= characters + 1
        self._charges += 1
        if self._left < 0:
            raise TemplateLimit(f"writes or copies more than {self.characters:,} characters for one conversation")
        if not self._charges % 64 and time.thread_time() > self.until:
            raise TemplateLimit(f"takes more than {self.seconds:.0f} seconds for one conversation")


_budget: ContextVar[_Budget] = ContextVar("tunebook-template-budget")


def _charge(characters: int) -> None:
    _budget.get().charge(characters)


def _weigh(value: Any) -> int:
    """Charge for every part of a value, as turning it into text would meet them; returns what that came to.

    Lists that hold one list twice, at every level, are small in memory and endless as text.
    """
    total, parts = 0, [value]
    while parts:
        part = parts.pop()
        size = len(part) if isinstance(part, _SIZED) else 1
        _charge(size)
        total += size
        if isinstance(part, Mapping):
            parts += part.keys()
            parts += part.values()
        elif isinstance(part, _CONTAINERS):
            parts += part
    return total


_CONTAINERS = (list, tuple, set, frozenset, KeysView, ValuesView, ItemsView)
_SIZED = (str, bytes, Mapping, *_CONTAINERS)


@final
class _Generation(Extension):
    """`{% generation %}`: what stands within is the assistant's."""

    tags = frozenset({"generation"})  # pyright: ignore[reportAssignmentType]

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("mark"), [], [], body).set_lineno(line)

    def mark(self, caller: Callable[[], str]) -> str:
        text, budget = caller(), _budget.get()
        budget.spans.append((budget.written, budget.written + len(text)))
        return text


@final
class _Formatter(SandboxedFormatter):
    """`str.format`, each field charged for."""

    def format_field(self, value: Any, format_spec: str) -> Any:
        _weigh(value)
        _charge(sum(map(int, re.findall(r"\d{1,18}", format_spec))))
        return super().format_field(value, format_spec)


@final
class _Sandbox(ImmutableSandboxedEnvironment):
    """jinja2's sandbox, whose operators and calls are charged for."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        _charge(_growth(operator, left, right))
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, obj: Any, /, *args: Any, **options: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        if isinstance(obj, MethodType) and obj.__self__ is self:
            return obj(*args)
        if not isinstance(obj, Macro | LoopContext):
            for value in (*args, *options.values()):
                _weigh(value)
        if isinstance(obj, BuiltinMethodType):
            if obj.__name__ == "join":
                args = tuple(map(_as_list, args))
            _charge(_growth_of_method(obj.__self__, obj.__name__, (*args, *options.values())))
        return super().call(context, obj, *args, **options)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(argument, tuple):
            _weigh(argument)  # to be hashed
        return super().getitem(obj, argument)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        plain = super().wrap_str_format(value)
        if plain is None:
            return None
        text, is_map = value.__self__, value.__name__ == "format_map"

        def formatted(*args: Any, **options: Any) -> str:
            _charge(len(text))
            given = ((), args[0]) if is_map and len(args) == 1 else (args, options)
            return type(text)(_Formatter(self).vformat(text, *given))

        return formatted

    def tick(self) -> None:
        """Charge for one more turn of a loop, or one more call of a macro."""
        _charge(1)

    def shown(self, value: Any, constant: int) -> Any:
        """`value`, on its way into the text beside `constant` characters of the template's own."""
        _weigh(value)
        _charge(constant)
        return value

    def compared(self, value: Any) -> Any:
        """`value`, about to be compared or hashed."""
        if isinstance(value, (*_CONTAINERS, Mapping)):
            _weigh(value)
        return value

    def sliced(self, value: Any) -> Any:
        """`value`, cut from another."""
        _charge(len(value) if isinstance(value, _SIZED) else 1)
        return value


def _meter(tree: nodes.Template) -> None:
    """Have everything in a template that can repeat or grow, and is no operator, call or filter, charged for."""
    for node in [tree, *tree.find_all(nodes.Node)]:
        if isinstance(node, nodes.For | nodes.Macro | nodes.CallBlock | nodes.Block):
            node.body.insert(0, nodes.ExprStmt(_asked("tick"), lineno=node.lineno))
        elif isinstance(node, nodes.Output):
            constant = sum(len(part.data) for part in node.nodes if isinstance(part, nodes.TemplateData))
            shown = [part if isinstance(part, nodes.TemplateData) else _asked("shown", part) for part in node.nodes]
            beside = _asked("shown", nodes.Const(""))
            node.nodes = [_with(beside, nodes.Const(constant)), *(_with(part, nodes.Const(0)) for part in shown)]
        elif isinstance(node, nodes.Concat):
            node.nodes = [_with(_asked("shown", part), nodes.Const(0)) for part in node.nodes]
        elif isinstance(node, nodes.Compare):
            node.expr = _asked("compared", node.expr)
            for operand in node.ops:
                operand.expr = _asked("compared", operand.expr)
        elif isinstance(node, nodes.Pair):
            node.key = _asked("compared", node.key)
        _wrap_slices(node)


def _wrap_slices(node: nodes.Node) -> None:
    """Have the slices among the children of a node charged for."""
    for name, value in list(node.iter_fields()):
        if isinstance(value, list):
            setattr(node, name, [_asked("sliced", child) if _is_slice(child) else child for child in value])
        elif _is_slice(value):
            setattr(node, name, _asked("sliced", value))


def _is_slice(node: Any) -> bool:
    return isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice) and node.ctx == "load"


def _asked(name: str, *args: nodes.Expr) -> nodes.Call:
    """A call of a method of the sandbox."""
    line = args[0].lineno if args else 1
    return nodes.Call(nodes.EnvironmentAttribute(name), list(args), [], None, None, lineno=line)


def _with(node: nodes.Expr, arg: nodes.Expr) -> nodes.Expr:
    """A call made by `_asked` with one more argument; another node as it is."""
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.EnvironmentAttribute) and len(node.args) == 1:
        node.args.append(arg)
    return node


def _growth(operator: str, left: Any, right: Any) -> int:
    """How many characters or items an operator makes at most. Raises TemplateLimit for a number with too many bits."""
    if isinstance(left, int) and isinstance(right, int):
        bits = max(left.bit_length(), right.bit_length())
        if operator == "*":
            bits = left.bit_length() + right.bit_length()
        elif operator == "**":
            bits = max(bits, left.bit_length() * max(right, 1))
        if bits > MOST_BITS:
            raise TemplateLimit(f"computes with numbers of more than {MOST_BITS} bits")
        return 0
    if operator == "%" and isinstance(left, str | bytes):
        return _weigh(right) + _widths(left, right)
    sizes = [len(side) for side in (left, right) if isinstance(side, _SIZED)]
    counts = [max(side, 0) for side in (left, right) if isinstance(side, int)]
    return sizes[0] * counts[0] * 8 if operator == "*" and sizes and counts else sum(sizes)


def _widths(text: str | bytes, values: Any) -> int:
    """The characters that the widths in a %-format ask for."""
    text = text if isinstance(text, str) else text.decode("latin-1")
    found = re.findall(r"%(?:\([^)]*\))?[#0\- +]*(\*|\d{1,18})?(?:\.(\*|\d{1,18}))?", text)
    widths = [width for pair in found for width in pair if width]
    given = values if isinstance(values, tuple) else (values,)
    stars = sum(abs(value) for value in given if isinstance(value, int)) if "*" in widths else 0
    return len(text) + stars * widths.count("*") + sum(int(width) for width in widths if width != "*")


def _growth_of_method(owner: Any, name: str, args: Sequence[Any]) -> int:
    """How many characters or items a method of a built-in type makes at most."""
    ints = sum(abs(value) for value in args if isinstance(value, int))
    if not isinstance(owner, str | bytes):
        return ints + (_weigh(owner) if name in ("index", "count") else 0)
    size, first = len(owner), args[0] if args else None
    if name == "replace" and len(args) > 1 and isinstance(first, str | bytes) and isinstance(args[1], str | bytes):
        return size + owner.count(first) * len(args[1])  # pyright: ignore[reportArgumentType]
    if name == "join" and isinstance(first, list):
        return size * len(first) + _weigh(first)
    if name in ("split", "rsplit", "splitlines"):
        return size + 8 * (owner.count(first) if isinstance(first, type(owner)) and first else size // 2)  # pyright: ignore[reportArgumentType]
    if name == "expandtabs":
        return size + owner.count("\t" if isinstance(owner, str) else b"\t") * (ints or 8)  # pyright: ignore[reportArgumentType]
    if name == "translate" and isinstance(first, Mapping):
        return size * max((len(text) for text in first.values() if isinstance(text, str)), default=1)
    return size + ints


def _growth_of_filter(name: str, value: Any, args: Sequence[Any], options: Mapping[str, Any]) -> int:
    """How many characters or items a filter makes at most, or by how many it takes longer."""
    given = (*args, *options.values())
    ints = sum(abs(number) for number in given if isinstance(number, int))
    texts = [text for text in given if isinstance(text, str)]
    if name in _SHALLOW:
        return ints
    weight = _weigh(value)
    for other in given:
        _weigh(other)
    if name == "round" and ints > 400:
        raise TemplateLimit("rounds to more than 400 digits")
    if name == "replace" and len(texts) > 1 and isinstance(value, str):
        return value.count(texts[0]) * len(texts[1])
    if name == "join":
        return len(value) * sum(map(len, texts))
    if name == "indent":
        return (str(value).count("\n") + 1) * (ints or 4 + sum(map(len, texts)))
    if name == "tojson":
        return weight * ints
    if name == "format":
        return _widths(str(value), tuple(args))
    if name == "sum" and not isinstance(options.get("start", 0), int | float):
        return weight * weight
    return (
        ints
        + weight * _TIMES.get(name, 0) * (1 + sum(map(len, texts)) if name == "wordwrap" else 1)
        + (weight * weight // 1000 if name in ("striptags", "urlize") else 0)
    )


# Filters that look at no part of their value, or at each when it is asked for.
_SHALLOW = (
    *("attr", "batch", "count", "d", "default", "first", "items", "last", "length", "map", "random"),
    *("reject", "rejectattr", "select", "selectattr", "slice"),
)
# Filters that take so many times longer than what they write is long.
_TIMES = {"list": 8, "sort": 8, "unique": 8, "groupby": 8, "dictsort": 8, "wordwrap": 8, "pprint": 16, "title": 8}
_COMPARING = (
    *("eq", "==", "equalto", "ne", "!=", "lt", "<", "lessthan", "le", "<="),
    *("gt", ">", "greaterthan", "ge", ">=", "in"),
)


def _charged_filter(name: str, plain: Callable[..., Any]) -> Callable[..., Any]:
    takes_context = "jinja_pass_arg" in vars(plain) if hasattr(plain, "__dict__") else False

    @wraps(plain)
    def charged(*args: Any, **options: Any) -> Any:
        before, given = (args[:1], args[1:]) if takes_context else ((), args)
        if given:
            if name in ("join", "sum", "list", "sort", "unique", "groupby") and not isinstance(given[0], _SIZED):
                given = (
                    _as_list(given[0]),
                    *given[1:],
                )  # what comes one by one is charged for once it is there
            _charge(_growth_of_filter(name, given[0], given[1:], options))
        return plain(*before, *given, **options)

    return charged


def _charged_test(plain: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(plain)
    def charged(*args: Any) -> Any:
        for value in args:
            if isinstance(value, (*_CONTAINERS, Mapping)):
                _weigh(value)
        return plain(*args)

    return charged


def _as_list(value: Any) -> Any:
    """What comes one by one as a list, each item charged for; anything else as it is."""
    if isinstance(value, _SIZED) or not isinstance(value, Iterable):
        return value
    items = []
    for item in value:
        _charge(8)
        items.append(item)
    return items


def _raise_exception(message: Any) -> NoReturn:
    raise TemplateError(str(message))


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(format: str) -> str:
    if len(format) > 10_000:
        raise TemplateLimit("formats the time with more than 10,000 characters")
    return datetime.now().strftime(format)


@final
class _Dict:
    """`dict(...)` and `dict.fromkeys(...)` of a template, without the attributes of the class."""

    def __call__(self, *args: Any, **options: Any) -> dict[Any, Any]:
        return dict(*args, **options)

    def fromkeys(self, keys: Iterable[Any], value: Any = None) -> dict[Any, Any]:
        return dict.fromkeys(keys, value)


@final
class _Namespace(Namespace):
    """`namespace(...)` of a template; shown as text it is a word, for it may hold itself."""

    def __init__(*args: Any, **options: Any):
        self, values = args[0], dict(*args[1:], **options)
        for name in values:
            _check_attribute(name)
        Namespace.__init__(self, values)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_attribute(name)
        super().__setitem__(name, value)

    def __repr__(self) -> str:
        return "<Namespace>"


def _check_attribute(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise TemplateError(f"A namespace can have no attribute {name!r}; names begin with a letter.")


def _sandbox() -> _Sandbox:
    made = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    made.filters["tojson"] = _tojson
    made.filters |= {name: _charged_filter(name, plain) for name, plain in made.filters.items()}
    made.tests |= {name: _charged_test(made.tests[name]) for name in _COMPARING}
    made.globals |= {
        "raise_exception": _raise_exception,
        "strftime_now": _strftime_now,
        "dict": _Dict(),
        "namespace": _Namespace,
    }
    del made.globals["lipsum"]  # paragraphs of filler text, as many as are asked for
    return made


_SANDBOX = _sandbox()
