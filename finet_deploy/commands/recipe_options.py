"""One flag for every field of a recipe, made from the fields themselves: help, types and ranges cannot disagree."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from finet_deploy.commands.console import Console
from finet_deploy.data.names import dataset_info
from finet_deploy.errors import UsageError
from finet_deploy.train.recipe import Recipe, fit_model
from finet_deploy.train.recipe_fields import FieldSpec, check_value, field_specs
from finet_deploy.train.recipes import load_recipe, recipe_names

__all__ = ["GroupedCommand", "changed_recipe", "image_workers", "recipe_options"]

NOTHING = "none"
MAX_WORKERS = 8
METAVARS = {int: "N", float: "X", str: "NAME"}
TRUTH = {"true": True, "false": False}


class FieldType(click.ParamType[Any]):
    """Text on the command line -> a value that the recipe's field takes."""

    def __init__(self, spec: FieldSpec) -> None:
        self.spec, self.name = spec, spec.kind.__name__

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        one = "|".join(self.spec.choices) if self.spec.choices else METAVARS[self.spec.kind]
        if self.spec.length is None:
            return one
        return ",".join([one] * self.spec.length) if self.spec.length else f"{one},..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return check_value(self.spec, self._parse(value))
        except (UsageError, ValueError):
            self.fail(
                f"{value!r} is not {self.spec.range_text.replace('nothing', repr(NOTHING))}", param, ctx
            )

    def _parse(self, text: str) -> Any:
        if self.spec.optional and text.lower() == NOTHING:
            return None
        if self.spec.length is None:
            return self.spec.kind(text)
        return [self.spec.kind(part) for part in text.split(",") if part.strip()]


class RecipeOption(click.Option):
    """A recipe's field as a flag. `group`: the part of the help that it stands in."""

    def __init__(self, spec: FieldSpec) -> None:
        flag = "--" + spec.name.replace("_", "-")
        if spec.kind is bool:
            declaration, kind = f"{flag}/--no-{flag[2:]}", None
        else:
            declaration, kind = flag, FieldType(spec)
        limits = "; ".join(filter(None, [spec.limits, f"or {NOTHING}" if spec.optional else ""]))
        text = f"{spec.description} [{limits}]" if limits else spec.description
        super().__init__([declaration, spec.name], type=kind, default=None, help=text)
        self.group = spec.group


class GroupedCommand(click.Command):
    """Help with the recipe's flags in their groups, and the recipes that there are."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        groups: dict[str, list[tuple[str, str]]] = {"Options": []}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx)
            if record is not None and isinstance(parameter, click.Option):
                groups.setdefault(getattr(parameter, "group", "Options"), []).append(record)
        for title, records in groups.items():
            with formatter.section(title if title == "Options" else f"{title}, instead of the recipe's"):
                formatter.write_dl(records)
        with formatter.section("Recipes"):
            formatter.write_dl([(name, load_recipe(name).description) for name in recipe_names()])


def recipe_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """A flag for each field of a recipe but its network; those given reach the command as `changes`, by field."""
    specs = [spec for spec in field_specs(Recipe).values() if spec.group and spec.name != "model"]

    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        given = {spec.name: kwargs.pop(spec.name) for spec in specs}
        context = click.get_current_context()
        changes = {
            name: value
            for name, value in given.items()
            if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        }
        return function(*args, changes=changes, **kwargs)

    wrapper.__click_params__ = [  # type: ignore[attr-defined]
        *getattr(function, "__click_params__", []),
        *(RecipeOption(spec) for spec in reversed(specs)),
    ]
    return wrapper


def changed_recipe(recipe: Recipe, changes: dict[str, Any], console: Console) -> Recipe:
    """The recipe with these changes, every one of them announced; see `fit_model` for what they may exclude."""
    changed, notes = fit_model(recipe, changes)
    for note in notes:
        console.note(note)
    for name in field_specs(Recipe):
        before, after = getattr(recipe, name), getattr(changed, name)
        if before != after:
            console.note(f"recipe {recipe.name}: {name} {_show(before)} -> {_show(after)}")
    return changed


def _show(value: Any) -> str:
    if value is None:
        return NOTHING
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def image_workers(dataset: str, asked: int | None) -> int:
    """Files are read by as many processes as there are CPUs, to a limit; what is in memory needs none."""
    info = dataset_info(dataset)
    if asked is not None or info.in_package or info.downloads:
        return asked or 0
    return min(MAX_WORKERS, os.cpu_count() or 1)
