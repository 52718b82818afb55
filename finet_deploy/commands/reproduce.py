"""`finet-deploy reproduce`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finet_deploy.commands.console import Console, output_options
from finet_deploy.commands.recipe_options import GroupedCommand, image_workers, recipe_options
from finet_deploy.errors import UsageError
from finet_deploy.reproduce.grid import (
    Cell,
    Plan,
    grid_names,
    load_grid,
    make_cells,
    make_plan,
    select_cells,
)
from finet_deploy.train.recipes import load_recipe

if TYPE_CHECKING:
    from finet_deploy.reproduce.records import CellRecord
    from finet_deploy.reproduce.runner import Where
    from finet_deploy.train import Observer

EPILOG = """\b
Examples:
  finet-deploy reproduce groups --dry-run
  finet-deploy reproduce mimic --only lr=0.2
  finet-deploy reproduce table5 --dataset cifar10 --data data/ --download --seeds 3
  finet-deploy reproduce --from runs/reproduce/table5-cifar10
"""
DEFAULT_DATASET = "digits"


@click.command("reproduce", cls=GroupedCommand, epilog=EPILOG)
@click.argument("grid", required=False, metavar="[GRID]")
@click.option("--recipe", metavar="NAME|FILE", help="Instead of the grid's own recipe.")
@click.option("--model", metavar="NAME", help="Instead of the grid's own network.")
@click.option(
    "--seeds", type=click.IntRange(1), metavar="N", help="Runs of each cell (the grid's own number)."
)
@click.option("--only", multiple=True, metavar="LABEL", help="Only this row or column; may be repeated.")
@click.option("--limit-cells", type=click.IntRange(1), metavar="N", help="Stop after this many runs.")
@click.option("--dry-run", is_flag=True, help="List the runs and what they will cost; run none.")
@click.option(
    "--from",
    "source",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The table from a folder's records.",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="The grid's folder.")
@click.option(
    "--data", type=click.Path(path_type=Path), metavar="DIR", help="Where the data set lies, or shall lie."
)
@click.option("--download", is_flag=True, help="Fetch the data set if it is not there.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--workers", type=click.IntRange(0), metavar="N", help="Processes that read images.")
@click.option("--skip-bad-images", is_flag=True, help="Leave unreadable images out, name and count them.")
@recipe_options
@output_options
def command(
    grid: str | None,
    recipe: str | None,
    model: str | None,
    seeds: int | None,
    only: tuple[str, ...],
    limit_cells: int | None,
    dry_run: bool,
    source: Path | None,
    output: Path | None,
    data: Path | None,
    download: bool,
    device: str,
    workers: int | None,
    skip_bad_images: bool,
    changes: dict[str, Any],
    console: Console,
) -> int:
    """Run the grid of a paper's table, and print the table beside the paper's.

    GRID is one of table5, table6, table7 (Finet), mimic, mimic-nets (MimicNorm), groups (ours). Every run has its
    own folder; the same command goes on where it was stopped. The default data set is digits, which is not the
    papers': their figures then only tell the order to expect.
    """
    if source is not None:
        if grid is not None:
            raise UsageError("--from reads the grid from its folder", do="leave GRID out")
        return _show_table(source, console)
    if grid is None:
        raise UsageError("no grid was named", do=f"give one of {', '.join(grid_names())}, or --from DIR")
    if model is not None:
        changes = {"model": model, **changes}
    plan = make_plan(load_grid(grid), changes.get("dataset", DEFAULT_DATASET), recipe, changes, seeds)
    cells = select_cells(plan, make_cells(plan), only)
    folder = output or Path("runs", "reproduce", f"{plan.grid.name}-{plan.dataset}")
    _announce(plan, cells, folder, console)

    from finet_deploy.reproduce.records import open_grid_folder
    from finet_deploy.reproduce.runner import Where, pending_cells
    from finet_deploy.train import Process

    process = Process.from_environment(device)
    if process.world_size > 1:
        raise UsageError("a grid under torchrun", do="start it as one process; `train` takes torchrun")
    where = Where(
        folder=folder,
        data=data,
        download=download,
        skip_bad_images=skip_bad_images,
        workers=image_workers(plan.dataset, workers),
        process=process,
    )
    pending = pending_cells(folder, cells)[:limit_cells]
    if dry_run:
        _tell_costs(cells, pending, where, console)
        return 0
    open_grid_folder(folder, plan)
    failed = _run(pending, where, console)
    _show_table(folder, console)
    return 1 if failed else 0


def _announce(plan: Plan, cells: list[Cell], folder: Path, console: Console) -> None:
    console.note(f"{plan.grid.name}: {plan.grid.description} ({plan.grid.source})")
    console.note(
        f"{len(cells)} runs on {plan.dataset}, recipe {plan.recipe}, {plan.seeds} seeds; folder {folder}"
    )
    own = load_recipe(plan.recipe)
    for name, value in plan.changes.items():
        before = getattr(own, name)
        if before != getattr(cells[0].recipe, name):
            console.note(f"recipe {own.name}: {name} {before} -> {value}")
    for note in dict.fromkeys(note for cell in cells for note in cell.notes):
        console.note(note)


def _run(pending: list[Cell], where: Where, console: Console) -> int:
    """Run them; the number of those that failed. On Ctrl-C, how to go on is said."""
    from finet_deploy.commands.train_progress import TrainProgress
    from finet_deploy.reproduce.runner import run_cells

    @contextlib.contextmanager
    def watch(cell: Cell, number: int, total: int) -> Iterator[Observer]:
        with TrainProgress(console, f"[{number}/{total}] {cell.label}", resumable=False) as progress:
            yield progress

    failed = 0
    try:
        for done in run_cells(pending, where, watch):
            text = f"[{done.done}/{done.total}] {done.cell.label}: {_outcome(done.record)}"
            left = f"about {done.left_seconds:.0f} s left" if done.done < done.total else "done"
            if done.record.status == "failed":
                failed += 1
                console.warn(text)
            else:
                console.note(f"{text} ({done.record.seconds:.0f} s; {left})")
    except KeyboardInterrupt:
        console.note(f"the runs that ended are kept in {where.folder}; the same command goes on")
        raise
    return failed


def _outcome(record: CellRecord) -> str:
    if record.last is None:
        return f"{record.status}: {record.message}"
    return f"top-1 {record.last.value:.2%}"


def _show_table(folder: Path, console: Console) -> int:
    from finet_deploy.reproduce.records import load_grid_folder
    from finet_deploy.reproduce.table import table_markdown, table_object, write_table

    plan, records = load_grid_folder(folder)
    for path in write_table(plan, records, folder):
        console.note(f"wrote {path}")
    console.result(table_markdown(plan, records).rstrip())
    console.document(table_object(plan, records))
    return 0


def _tell_costs(cells: list[Cell], pending: list[Cell], where: Where, console: Console) -> None:
    from finet_deploy.data import open_dataset
    from finet_deploy.reproduce.cost import estimate_costs

    recipe = cells[0].recipe
    options = {"folder": where.data, "download": where.download, "skip_bad_images": where.skip_bad_images}
    train_set = open_dataset(recipe.dataset, "train", **options)  # type: ignore[arg-type]
    costs = estimate_costs(cells, len(train_set), len(train_set.classes), where.process.device)
    waiting = {cell.name for cell in pending}
    for cell in cells:
        cost = costs[cell.name]
        about = (
            f"about {cost.seconds:.0f} s" if cell.name in waiting else "not now: done, or beyond the limit"
        )
        console.result(
            f"{cell.label}: {cost.parameters / 1e6:.2f} M parameters, {cell.recipe.epochs} epochs, {about}"
        )
    total = sum(costs[name].seconds for name in waiting)
    console.result(
        f"{len(pending)} of {len(cells)} runs, about {total / 60:.1f} min, from one timed step of each network"
    )
    console.document(
        {
            "cells": [
                {"label": cell.label, "pending": cell.name in waiting, **asdict(costs[cell.name])}
                for cell in cells
            ],
            "pending_seconds": total,
        }
    )
