"""What a recipe's field may hold, read from its annotation: one source for checks, error texts and flags."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from finet_deploy.errors import UsageError, suggest

__all__ = ["FieldSpec", "check_known", "check_value", "field_specs", "setting"]

NOUNS = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def setting(group: str, description: str, **limits: Any) -> msgspec.Meta:
    """The annotation of a recipe's field: the part of the help it stands in, its text, and ge, gt, le, lt."""
    return msgspec.Meta(description=description, extra={"group": group}, **limits)


@dataclass(frozen=True)
class FieldSpec:
    """One field. kind: of a single value; length: None for a single value, 0 for a list of any length."""

    name: str
    kind: type
    annotation: Any
    group: str
    description: str
    optional: bool = False
    length: int | None = None
    choices: tuple[str, ...] = ()
    low: float | None = None
    high: float | None = None
    low_open: bool = False
    high_open: bool = False

    @property
    def range_text(self) -> str:
        """`a whole number from 1`, `one of linear, step`: what the field takes."""
        text = f"one of {', '.join(self.choices)}" if self.choices else NOUNS[self.kind]
        if self.limits:
            text = f"{text} {self.limits}"
        if self.length is not None:
            text = f"{self.length or 'any number of'} values, each {text}"
        return f"{text}, or nothing" if self.optional else text

    @property
    def limits(self) -> str:
        """`from 1`, `above 0, to 1`, or nothing."""
        parts = []
        if self.low is not None:
            parts.append(f"{'above' if self.low_open else 'from'} {_number(self.low)}")
        if self.high is not None:
            parts.append(f"{'below' if self.high_open else 'to'} {_number(self.high)}")
        return (", " if self.low_open or self.high_open else " ").join(parts)


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"


@functools.cache
def field_specs(recipe: type[msgspec.Struct]) -> dict[str, FieldSpec]:
    """Every field of the struct by name, in its order."""
    hints = get_type_hints(recipe, include_extras=True)
    return {name: _spec(name, hints[name]) for name in recipe.__struct_fields__}


def _spec(name: str, annotation: Any) -> FieldSpec:
    """Unwrap `Annotated`, `| None` and `tuple` down to the kind of one value; limits may stand at any depth."""
    found: dict[str, Any] = {}
    base, optional, length = annotation, False, None
    while get_origin(base) in (Annotated, Union, UnionType, tuple):
        if get_origin(base) is Annotated:
            base, meta = get_args(base)
            names = ("group", "description", "ge", "gt", "le", "lt")
            values = {
                **(meta.extra or {}),
                **{key: getattr(meta, key) for key in names if hasattr(meta, key)},
            }
            found |= {key: value for key, value in values.items() if value is not None}
        elif get_origin(base) is tuple:
            items = get_args(base)
            base, length = items[0], 0 if items[-1] is Ellipsis else len(items)
        else:
            base, optional = next(part for part in get_args(base) if part is not NoneType), True
    choices = get_args(base) if get_origin(base) is Literal else ()
    return FieldSpec(
        name=name,
        kind=str if choices else base,
        annotation=annotation,
        group=found.get("group", ""),
        description=found.get("description", ""),
        optional=optional,
        length=length,
        choices=choices,
        low=found.get("ge", found.get("gt")),
        high=found.get("le", found.get("lt")),
        low_open="gt" in found,
        high_open="lt" in found,
    )


def check_value(spec: FieldSpec, value: Any, *, where: str | None = None) -> Any:
    """`value` as the field holds it (lists as tuples, whole numbers as floats where the field is one).

    Raises UsageError that names the field, the value and what the field takes.
    """
    try:
        checked = msgspec.convert(value, spec.annotation)
    except msgspec.ValidationError:
        raise _wrong(spec, value, where) from None
    items = checked if isinstance(checked, tuple) else (checked,)
    if any(isinstance(item, float) and not math.isfinite(item) for item in items):
        raise _wrong(spec, value, where)
    return checked


def _wrong(spec: FieldSpec, value: Any, where: str | None) -> UsageError:
    advice = f"give {spec.range_text}"
    if spec.choices and isinstance(value, str):
        hint = suggest(value, spec.choices)
        advice = f"{hint} ({advice})" if hint else advice
    return UsageError(f"{spec.name} = {_show(value)} is out of range", where=where, do=advice)


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_known(name: str, known: dict[str, FieldSpec], *, where: str | None = None) -> FieldSpec:
    """The field called `name`; UsageError with near names when a recipe has none."""
    if name not in known:
        hint = suggest(name, known) or f"a recipe has {', '.join(known)}"
        raise UsageError(f"a recipe has no field {name!r}", where=where, do=hint)
    return known[name]
