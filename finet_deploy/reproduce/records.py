"""What a grid has done so far, in its folder: `plan.json`, and one record a run in `records/`.

Records are all that a table needs: they can be kept when the runs' own folders, with their checkpoints, are gone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.files import atomic_write_bytes
from finet_deploy.json_files import encode_json, read_json
from finet_deploy.reproduce.grid import Cell, Grid, Plan

__all__ = [
    "CellRecord",
    "Share",
    "load_grid_folder",
    "open_grid_folder",
    "read_record",
    "run_folder",
    "write_record",
]

PLAN_FILE, RECORDS, RUNS = "plan.json", "records", "runs"
MAX_BYTES = 1 << 22


class Share(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Top-1 accuracy as a fraction, its Wilson 95 % interval on the held-out images, and their number."""

    value: float
    low: float
    high: float
    images: int


class CellRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How one run ended.

    done: `last` and `best` are its accuracies. diverged: the loss or a gradient was not finite; that is a result,
    it counts as chance. failed: something else; the run is tried again next time. message: of the latter two.
    """

    schema_version: int = 1
    row: str
    column: str
    seed: int
    status: Literal["done", "diverged", "failed"]
    recipe: dict[str, Any]
    num_classes: int | None = None
    last: Share | None = None
    best: Share | None = None
    best_epoch: int | None = None
    steps: int | None = None
    seconds: float
    message: str = ""
    fingerprint: str = ""
    device: str = ""
    machine: str = ""
    torch: str = ""
    finet_deploy: str = ""

    def top1(self, grid: Grid) -> float | None:
        """The fraction that stands in the table; chance for a run that diverged, None for one that failed."""
        if self.status == "diverged" and self.num_classes:
            return 1 / self.num_classes
        share = self.last if grid.metric == "last" else self.best
        return None if share is None else share.value


def open_grid_folder(folder: Path, plan: Plan) -> None:
    """Start a folder for this plan, or go on in one that holds it already (more seeds than before are welcome).

    Raises UsageError when the folder holds another plan, or something else.
    """
    path = folder / PLAN_FILE
    if path.is_file():
        found = _decode(path, Plan)
        if msgspec.structs.replace(found, seeds=plan.seeds) != plan:
            raise UsageError(
                f"the folder holds another run of a grid: {_differences(found, plan)}",
                where=str(folder),
                do="give the same options, or another -o",
            )
    elif folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError("output already exists and holds no grid", where=str(folder), do="choose another -o")
    atomic_write_bytes(path, encode_json(plan))


def _differences(found: Plan, wanted: Plan) -> str:
    pairs: list[tuple[str, Any, Any]] = [
        ("grid", found.grid.name, wanted.grid.name),
        ("dataset", found.dataset, wanted.dataset),
    ]
    pairs.append(("recipe", found.recipe, wanted.recipe))
    names = sorted(found.changes.keys() | wanted.changes.keys())
    pairs += [(name, found.changes.get(name), wanted.changes.get(name)) for name in names]
    texts = [f"{name} {before}, not {after}" for name, before, after in pairs if before != after]
    return "; ".join(texts) or "the grid's definition has changed since"


def load_grid_folder(folder: Path) -> tuple[Plan, list[CellRecord]]:
    """The plan and all records of a folder, in the records' order of names. FinetDeployError when it holds none."""
    plan = folder / PLAN_FILE
    if not plan.is_file():
        raise FinetDeployError(f"no {PLAN_FILE} in this folder", where=str(folder), do="name a grid's folder")
    paths = sorted((folder / RECORDS).glob("*.json"))
    return _decode(plan, Plan), [_decode(path, CellRecord) for path in paths]


def read_record(folder: Path, cell: Cell) -> CellRecord | None:
    """The record of this cell, None when it has not ended yet."""
    path = folder / RECORDS / f"{cell.name}.json"
    return _decode(path, CellRecord) if path.is_file() else None


def write_record(folder: Path, cell: Cell, record: CellRecord) -> None:
    """Written whole or not at all."""
    atomic_write_bytes(folder / RECORDS / f"{cell.name}.json", encode_json(record))


def run_folder(folder: Path, cell: Cell) -> Path:
    """Where the cell trains."""
    return folder / RUNS / cell.name


def _decode(path: Path, kind: Any) -> Any:
    do = "remove the file to have the run done again"
    return read_json(path, kind, max_bytes=MAX_BYTES, what="unreadable record", do=do)
