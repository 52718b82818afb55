"""The reference of the Python API, from the code: signatures and docstrings of what `finet_deploy` exports."""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from typing import Any

import finet_deploy

__all__ = ["CLASSES", "functions", "reference", "signature", "signatures"]

# Types that the functions return or take, and where they are imported from.
CLASSES = {
    "BenchResult": "finet_deploy.api",
    "Report": "finet_deploy.api",
    "Listener": "finet_deploy.api",
    "Certificate": "finet_deploy.verify",
    "Bundle": "finet_deploy.export",
    "FuseReport": "finet_deploy.fuse",
    "Preprocessing": "finet_deploy.images",
}
WIDTH = 100


def functions() -> dict[str, Callable[..., Any]]:
    """The public functions by name, in the order of `__all__`."""
    return {name: getattr(finet_deploy, name) for name in finet_deploy.__all__}


def signature(name: str, function: Callable[..., Any]) -> str:
    """`name(parameters) -> result` as it is written in the code; one line, or a line a parameter where that is long."""
    found = inspect.signature(function)
    parts, keywords = [], False
    for parameter in found.parameters.values():
        if parameter.kind is parameter.KEYWORD_ONLY and not keywords:
            parts.append("*")
            keywords = True
        parts.append(_parameter(parameter))
    result = "" if found.return_annotation is found.empty else f" -> {found.return_annotation}"
    line = f"{name}({', '.join(parts)}){result}"
    if len(line) <= WIDTH:
        return line
    inner = "".join(f"    {part},\n" for part in parts)
    return f"{name}(\n{inner}){result}"


def _parameter(parameter: inspect.Parameter) -> str:
    if parameter.annotation is parameter.empty:
        return parameter.name
    text = f"{parameter.name}: {parameter.annotation}"
    if parameter.default is parameter.empty:
        return text
    default = parameter.default
    if callable(default):
        return f"{text} = {default.__name__}"
    if type(default).__name__ == "mappingproxy":
        return f"{text} = {dict(default)}"
    return f"{text} = {default!r}"


def members(kind: type) -> dict[str, str]:
    """The public fields, properties and methods of a class, each as a line of code."""
    fields = {name: f"{name}: {text}" for name, text in inspect.get_annotations(kind).items()}
    for name, member in vars(kind).items():
        found = getattr(kind, name)
        if isinstance(member, property) and member.fget is not None:
            fields[name] = f"{name}: {inspect.signature(member.fget).return_annotation}"
        elif inspect.isroutine(found):
            fields[name] = signature(name, found)
    return {name: text for name, text in fields.items() if not name.startswith("_")}


def class_of(name: str) -> type:
    """The class of one of the names in CLASSES."""
    found: type = getattr(importlib.import_module(CLASSES[name]), name)
    return found


def signatures() -> str:
    """All of them, a line each: what programs rely on."""
    lines = [signature(name, function) for name, function in functions().items()]
    for name in CLASSES:
        lines += [f"{name}.{text}" for text in members(class_of(name)).values()]
    return "\n".join(lines) + "\n"


def reference() -> str:
    """Functions, then classes, in Markdown."""
    parts = ["### Functions\n"]
    for name, function in functions().items():
        parts += [
            f"#### {name}\n",
            f"```py\n{signature(name, function)}\n```\n",
            f"{inspect.getdoc(function)}\n",
        ]
    parts += ["### What they return and take\n"]
    for name, home in CLASSES.items():
        kind = class_of(name)
        code = "\n".join(members(kind).values())
        parts += [
            f"#### {name}\n",
            f"`from {home} import {name}`: {inspect.getdoc(kind)}\n",
            f"```py\n{code}\n```\n",
        ]
    return "\n".join(parts).rstrip("\n") + "\n"


if __name__ == "__main__":
    sys.stdout.write(signatures())
