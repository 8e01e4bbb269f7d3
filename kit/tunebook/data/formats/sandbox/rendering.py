"""A template's source in, a compiled template out; a context in, text and marked spans out."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from jinja2 import Template
from jinja2.exceptions import TemplateError

from .budget import Budget, Span, TemplateLimit, current_budget
from .environment import SANDBOX
from .metering import meter

LONGEST_SOURCE = 1_000_000  # characters; the longest released template has some 30,000

# What a template can raise by itself, besides the errors of Jinja.
FAILURES = (TemplateError, ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


class NotJinja(ValueError):
    """A source that cannot be made a template; the message says why, to end a sentence with."""


@lru_cache(maxsize=32)
def compiled(source: str) -> Template:
    """The template of a source. Raises NotJinja."""
    if len(source) > LONGEST_SOURCE:
        raise NotJinja(f"it has {len(source)} characters, more than {LONGEST_SOURCE}")
    token = current_budget.set(Budget(0))  # constants are computed now
    try:
        tree = SANDBOX.parse(source)
        meter(tree)
        tree.set_environment(SANDBOX)
        return Template.from_code(SANDBOX, SANDBOX.compile(tree), SANDBOX.make_globals(None))
    except (*FAILURES, SyntaxError, MemoryError) as error:  # the last two are Python's, of what Jinja makes for it
        raise NotJinja(f"it cannot be read as Jinja ({type(error).__name__}: {error})") from error
    finally:
        current_budget.reset(token)


def rendered(template: Template, context: Mapping[str, Any], *, size: int) -> tuple[str, list[Span]]:
    """The text of a context of `size` characters, and the spans between its {% generation %} markers, in order.

    Raises TemplateLimit, and what FAILURES lists for a template that refuses.
    """
    budget = Budget(size)
    token, blocks = current_budget.set(budget), []
    try:
        for block in template.generate(context):
            blocks.append(block)
            budget.written += len(block)
        return "".join(blocks), budget.spans
    except MemoryError as error:
        raise TemplateLimit("takes more memory than there is") from error
    finally:
        current_budget.reset(token)
