"""jinja2's sandboxed environment, with operators, calls, filters and output charged for."""

import re
from collections.abc import Callable, Mapping
from types import BuiltinMethodType, MethodType
from typing import Any, final

from jinja2 import nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter

from .budget import CONTAINERS, SIZED, as_list, charge, current_budget, weigh
from .filters import charged_filters, charged_tests
from .globals import GLOBALS
from .growth import growth_of_method, growth_of_operator


@final
class _Generation(Extension):
    """`{% generation %}`: what stands within is the assistant's."""

    tags = frozenset({"generation"})  # pyright: ignore[reportAssignmentType]

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("mark"), [], [], body).set_lineno(line)

    def mark(self, caller: Callable[[], str]) -> str:
        text, budget = caller(), current_budget.get()
        budget.spans.append((budget.written, budget.written + len(text)))
        return text


@final
class _Formatter(SandboxedFormatter):
    """`str.format`, each field charged for."""

    def format_field(self, value: Any, format_spec: str) -> Any:
        weigh(value)
        charge(sum(map(int, re.findall(r"\d{1,18}", format_spec))))
        return super().format_field(value, format_spec)


@final
class _Sandbox(ImmutableSandboxedEnvironment):
    """jinja2's sandbox, whose operators and calls are charged for."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        charge(growth_of_operator(operator, left, right))
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, obj: Any, /, *args: Any, **options: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        if isinstance(obj, MethodType) and obj.__self__ is self:
            return obj(*args)
        if not isinstance(obj, Macro | LoopContext):
            for value in (*args, *options.values()):
                weigh(value)
        if isinstance(obj, BuiltinMethodType):
            if obj.__name__ == "join":
                args = tuple(map(as_list, args))
            charge(growth_of_method(obj.__self__, obj.__name__, (*args, *options.values())))
        return super().call(context, obj, *args, **options)

    def getitem(self, obj: Any, argument: Any) -> Any:
        if isinstance(argument, tuple):
            weigh(argument)  # to be hashed
        return super().getitem(obj, argument)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        plain = super().wrap_str_format(value)
        if plain is None:
            return None
        text, is_map = value.__self__, value.__name__ == "format_map"

        def formatted(*args: Any, **options: Any) -> str:
            charge(len(text))
            given = ((), args[0]) if is_map and len(args) == 1 else (args, options)
            return type(text)(_Formatter(self).vformat(text, *given))

        return formatted

    def tick(self) -> None:
        """Charge for one more turn of a loop, or one more call of a macro."""
        charge(1)

    def shown(self, value: Any, constant: int) -> Any:
        """`value`, on its way into the text beside `constant` characters of the template's own."""
        weigh(value)
        charge(constant)
        return value

    def compared(self, value: Any) -> Any:
        """`value`, about to be compared or hashed."""
        if isinstance(value, (*CONTAINERS, Mapping)):
            weigh(value)
        return value

    def sliced(self, value: Any) -> Any:
        """`value`, cut from another."""
        charge(len(value) if isinstance(value, SIZED) else 1)
        return value


def _sandbox() -> _Sandbox:
    made = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    made.filters |= charged_filters(made.filters)
    made.tests |= charged_tests(made.tests)
    made.globals |= GLOBALS
    del made.globals["lipsum"]  # paragraphs of filler text, as many as are asked for
    return made


SANDBOX = _sandbox()
