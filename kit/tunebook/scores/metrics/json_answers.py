"""Answers that a program is to read as JSON: whether it can, whether it finds what it expects, and the same as there.

Schemas are checked by jsonschema, of the extra `tunebook[scores]`.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from ..question import Question
from .metric import Metric, NotScored, reference_of, value_of
from .optional import optional

FENCED = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", re.DOTALL)


def valid_json(*, fenced: bool = False) -> Metric:
    """Whether all of the answer is JSON. `fenced` takes it out of Markdown's ``` first, where it stands in them."""
    return Metric(name="valid_json", judge=lambda _, answer: parsed(answer, fenced=fenced) is not INVALID)


def json_match(reference: str | None = None, *, fenced: bool = False) -> Metric:
    """Whether the answer is the same JSON as the row's own, or as the column `reference`; no order of keys counts."""

    def judge(question: Question, answer: str) -> bool:
        wanted: Any = value_of(question.row, reference) if reference else reference_of(question)
        if isinstance(wanted, str):
            wanted = parsed(wanted, fenced=fenced)
        if wanted is INVALID:
            raise NotScored("its reference is no JSON.")
        return parsed(answer, fenced=fenced) == wanted

    return Metric(name="json_match", judge=judge)


def json_schema(schema: Mapping[str, Any] | str, *, fenced: bool = False) -> Metric:
    """Whether the answer is JSON that `schema` allows: a JSON schema, or the column each row has its own in.

    Raises ImportError without jsonschema, and ValueError for a schema that is none.
    """
    jsonschema = optional("jsonschema", "json_schema")

    def validator(schema: Any) -> Any:
        kind = jsonschema.validators.validator_for(schema)
        try:
            kind.check_schema(schema)
        except jsonschema.SchemaError as error:
            raise ValueError(f"this is no JSON schema: {error.message}") from error
        return kind(schema)

    fixed = None if isinstance(schema, str) else validator(schema)

    def judge(question: Question, answer: str) -> bool:
        given = parsed(answer, fenced=fenced)
        return given is not INVALID and (fixed or validator(_own(question, str(schema)))).is_valid(given)

    return Metric(name="json_schema", judge=judge)


INVALID = object()  # in place of what is no JSON; null is


def parsed(text: str, *, fenced: bool = False) -> Any:
    """The value a text is the JSON of, or INVALID. Numbers that JSON does not have (NaN) are not taken."""
    inside = FENCED.fullmatch(text) if fenced else None
    try:
        return json.loads(inside[1] if inside else text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return INVALID


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


def _own(question: Question, column: str) -> Any:
    schema = value_of(question.row, column)
    return json.loads(schema) if isinstance(schema, str) else schema
