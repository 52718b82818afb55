"""Recipes by name or from a file. Those of the package are `recipe_files/*.toml`, each value with its source."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from finet_deploy.errors import UsageError, suggest
from finet_deploy.files import read_bounded
from finet_deploy.json_files import decode_json
from finet_deploy.train.recipe import Recipe, fit_model

__all__ = ["DEFAULT_RECIPE", "Recipe", "fit_model", "load_recipe", "recipe_names"]

DEFAULT_RECIPE = "digits"
MAX_BYTES = 1 << 18


def recipe_names() -> tuple[str, ...]:
    """The recipes in the package."""
    files = resources.files("finet_deploy.train").joinpath("recipe_files").iterdir()
    return tuple(sorted(file.name.removesuffix(".toml") for file in files if file.name.endswith(".toml")))


def load_recipe(name: str | Path, model: str | None = None) -> Recipe:
    """A recipe of the package by its name, or from a TOML or JSON file (a run folder's `recipe.json`).

    model: the network it is meant for; `[per_model.<model>]` in the file then goes before the file's own values.
    A file may build on a recipe of the package: `base = "paper-cifar"`.
    Raises UsageError for an unknown name and unknown, missing or impossible values, FinetDeployError for a file
    that cannot be read.
    """
    return Recipe.from_json_object(_values(name, model), where=_where(name))


def _where(name: str | Path) -> str:
    return f"recipe {name}" if name in recipe_names() else str(name)


def _values(name: str | Path, model: str | None) -> dict[str, Any]:
    values = _read(name)
    special = values.pop("per_model", {})
    if not isinstance(special, dict) or not all(isinstance(value, dict) for value in special.values()):
        raise UsageError("per_model holds tables", where=_where(name), do="write [per_model.<model>]")
    base = values.pop("base", None)
    if base is not None:
        if base not in recipe_names():
            do = suggest(str(base), recipe_names()) or f"there are {', '.join(recipe_names())}"
            raise UsageError(f"unknown base {base!r}", where=_where(name), do=do)
        values = {**_values(base, model), **values}
    values.setdefault("name", Path(name).stem)
    return {**values, **special.get(model or values.get("model"), {})}


def _read(name: str | Path) -> dict[str, Any]:
    if name in recipe_names():
        file = resources.files("finet_deploy.train").joinpath("recipe_files", f"{name}.toml")
        return msgspec.toml.decode(file.read_bytes())
    path = Path(name)
    if path.suffix not in (".toml", ".json"):
        do = (
            suggest(str(name), recipe_names())
            or f"there are {', '.join(recipe_names())}; or name a .toml file"
        )
        raise UsageError(f"unknown recipe {str(name)!r}", do=do)
    if not path.is_file():
        raise UsageError("no such recipe file", where=str(path), do="check --recipe")
    data = read_bounded(path, MAX_BYTES)
    try:
        found = msgspec.toml.decode(data) if path.suffix == ".toml" else decode_json(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        do = "check the file; it may be cut short"
        raise UsageError(f"unreadable recipe: {error}", where=str(path), do=do) from error
    if not isinstance(found, dict):
        raise UsageError(
            "a recipe is a table of fields", where=str(path), do="see the recipes of the package"
        )
    return found
