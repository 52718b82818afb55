"""Grids: which runs a table of a paper is made of. Data in `grids.json`; nothing here imports torch."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any, Literal

import msgspec

from finet_deploy.errors import UsageError, suggest
from finet_deploy.train.recipes import Recipe, fit_model, load_recipe

__all__ = [
    "Axis",
    "Cell",
    "Grid",
    "PaperTable",
    "Plan",
    "grid_names",
    "load_grid",
    "make_cells",
    "make_plan",
    "select_cells",
]


class _Data(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Plain data, checked when it is read."""


class Axis(_Data, frozen=True, kw_only=True):
    """A row or a column. options: fields of the recipe. paper: where its figures stand in the paper's table (of a
    row, the values of its columns; of a column, the name of one)."""

    label: str
    options: dict[str, Any]
    paper: dict[str, str] | str | None = None


class PaperTable(_Data, frozen=True, kw_only=True):
    """datasets: our name for each data set of the table, and the paper's."""

    paper: str
    table: int
    datasets: dict[str, str]


class Grid(_Data, frozen=True, kw_only=True):
    """Rows x columns of runs with one recipe. metric: accuracy of the `last` epoch, or of the `best` one.

    digits_recipe, digits_options: instead of, and on top of, the others when the data set is digits.
    """

    name: str
    description: str
    source: str
    recipe: str
    digits_recipe: str
    options: dict[str, Any]
    digits_options: dict[str, Any]
    metric: Literal["last", "best"]
    seeds: int
    rows: tuple[Axis, ...]
    columns: tuple[Axis, ...]
    paper: PaperTable | None

    @property
    def varied(self) -> set[str]:
        """Fields of the recipe that differ between cells."""
        return {name for axis in (*self.rows, *self.columns) for name in axis.options}


class Plan(_Data, frozen=True, kw_only=True):
    """What one folder holds: a grid, on a data set, by a recipe with the user's own changes."""

    schema_version: int = 1
    grid: Grid
    dataset: str
    recipe: str
    changes: dict[str, Any]
    seeds: int


class Cell(_Data, frozen=True, kw_only=True):
    """One training run. notes: what of the recipe its network does not have."""

    row: str
    column: str
    recipe: Recipe
    notes: tuple[str, ...] = ()

    @property
    def seed(self) -> int:
        return self.recipe.seed

    @property
    def label(self) -> str:
        """`with affine, G=4, seed 0`."""
        return f"{self.row}, {self.column}, seed {self.seed}"

    @property
    def name(self) -> str:
        """`with-affine_G-4_seed0`: of its folder and its record."""
        parts = [re.sub(r"[^\w.]+", "-", part) for part in (self.row, self.column)]
        return "_".join([*parts, f"seed{self.seed}"])


@functools.cache
def _read() -> dict[str, dict[str, Any]]:
    data = resources.files("finet_deploy.reproduce").joinpath("grids.json").read_bytes()
    return msgspec.json.decode(data, type=dict[str, dict[str, Any]])


def grid_names() -> tuple[str, ...]:
    """All grids, in the order of the file."""
    return tuple(_read())


def load_grid(name: str) -> Grid:
    """A grid by its name. UsageError, with near names, when there is none."""
    if name not in _read():
        do = suggest(name, grid_names()) or f"there are {', '.join(grid_names())}"
        raise UsageError(f"unknown grid {name!r}", do=do)
    return msgspec.convert({"name": name, **_read()[name]}, Grid)


def make_plan(
    grid: Grid, dataset: str, recipe: str | None, changes: dict[str, Any], seeds: int | None
) -> Plan:
    """The plan with the grid's own recipe and number of seeds where none is given. changes: fields of the recipe."""
    plan = Plan(
        grid=grid,
        dataset=dataset,
        recipe=recipe or (grid.digits_recipe if dataset == "digits" else grid.recipe),
        changes={name: value for name, value in changes.items() if name != "dataset"},
        seeds=seeds or grid.seeds,
    )
    # As it will be read back: a tuple among the changes is a list in JSON.
    return msgspec.json.decode(msgspec.json.encode(plan), type=Plan)


def make_cells(plan: Plan) -> list[Cell]:
    """Every run of the plan: all cells with the first seed, then all with the next, so that each part is a table.

    Raises UsageError for a change of what the grid itself varies, and for values that a recipe refuses.
    """
    for name in plan.changes:
        if name in plan.grid.varied:
            raise UsageError(
                f"{name} is what the grid {plan.grid.name} varies",
                do="leave it out; --only and --seeds choose cells",
            )
    first = plan.changes.get("seed", 0)
    return [
        _cell(plan, row, column, first + seed)
        for seed in range(plan.seeds)
        for row in plan.grid.rows
        for column in plan.grid.columns
    ]


def _cell(plan: Plan, row: Axis, column: Axis, seed: int) -> Cell:
    grid = plan.grid
    changes = {
        **grid.options,
        **(grid.digits_options if plan.dataset == "digits" else {}),
        **row.options,
        **column.options,
        **plan.changes,
        "dataset": plan.dataset,
        "seed": seed,
    }
    recipe, notes = fit_model(load_recipe(plan.recipe, changes.get("model")), changes)
    return Cell(row=row.label, column=column.label, recipe=recipe, notes=tuple(notes))


def select_cells(plan: Plan, cells: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    """The cells in these rows and columns; rows alone mean all columns, and the other way round.

    Raises UsageError, with near labels, for a label that the grid does not have.
    """
    rows = {axis.label for axis in plan.grid.rows}
    columns = {axis.label for axis in plan.grid.columns}
    for label in only:
        if label not in rows | columns:
            do = suggest(label, rows | columns) or f"there are {', '.join(sorted(rows | columns))}"
            raise UsageError(f"the grid {plan.grid.name} has no row or column {label!r}", do=do)
    wanted_rows, wanted_columns = rows & set(only) or rows, columns & set(only) or columns
    return [cell for cell in cells if cell.row in wanted_rows and cell.column in wanted_columns]
