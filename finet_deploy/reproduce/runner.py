"""Running a grid: one cell after another, each in a folder of its own, none stopped by another's failure."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from finet_deploy import __version__
from finet_deploy.data import open_dataset
from finet_deploy.devices.probes import host_info
from finet_deploy.errors import FinetDeployError
from finet_deploy.files import explain_os_error
from finet_deploy.reproduce.grid import Cell
from finet_deploy.reproduce.records import CellRecord, Share, read_record, run_folder, write_record
from finet_deploy.train import Process, TrainResult, train
from finet_deploy.train.folder import RECIPE_FILE
from finet_deploy.train.state import STATE_FILE
from finet_deploy.train.step import NotFinite

if TYPE_CHECKING:
    from finet_deploy.data import Accuracy, ImageDataset
    from finet_deploy.train import Observer

__all__ = ["CellDone", "Where", "pending_cells", "run_cells"]

Watch = Callable[[Cell, int, int], "AbstractContextManager[Observer]"]


@dataclass(frozen=True)
class Where:
    """All that a cell's recipe does not say. data: the data set's folder."""

    folder: Path
    data: Path | None = None
    download: bool = False
    skip_bad_images: bool = False
    workers: int = 0
    process: Process = field(default_factory=Process)


@dataclass(frozen=True)
class CellDone:
    """Told after each run. left_seconds: of those to come, if they take as long as the ones so far."""

    cell: Cell
    record: CellRecord
    done: int
    total: int
    left_seconds: float


def pending_cells(folder: Path, cells: Sequence[Cell]) -> list[Cell]:
    """The cells without a result: those that failed are tried again, those that diverged are not."""
    records = ((cell, read_record(folder, cell)) for cell in cells)
    return [cell for cell, record in records if record is None or record.status == "failed"]


def run_cells(cells: Sequence[Cell], where: Where, watch: Watch) -> Iterator[CellDone]:
    """Run each cell, or go on with it where it was interrupted, and write its record.

    watch: gives the observer of a run, as a context around it (cell, its number from 1, their number).
    Ctrl-C and SIGTERM save the run under way first, then take their course.
    """
    started = time.monotonic()
    for number, cell in enumerate(cells, 1):
        with watch(cell, number, len(cells)) as observer:
            record = _run_cell(cell, where, observer)
        write_record(where.folder, cell, record)
        if record.status != "failed":  # nothing to go on with; for big networks it is most of the disk space
            (run_folder(where.folder, cell) / STATE_FILE).unlink(missing_ok=True)
        left = (time.monotonic() - started) / number * (len(cells) - number)
        yield CellDone(cell, record, number, len(cells), left)


def _run_cell(cell: Cell, where: Where, observer: Observer) -> CellRecord:
    began = time.monotonic()
    status, message, result = "done", "", None
    train_set: ImageDataset | None = None
    try:
        train_set, val_set = (
            open_dataset(
                cell.recipe.dataset,
                split,
                folder=where.data,
                download=where.download,
                skip_bad_images=where.skip_bad_images,
            )
            for split in ("train", "val")
        )
        result = _train(cell, where, observer, train_set, val_set)
    except FinetDeployError as error:
        status = "diverged" if isinstance(error.__cause__, NotFinite) else "failed"
        message = str(error)
    except (
        MemoryError,
        RuntimeError,
    ) as error:  # torch's errors; out of memory is one of the papers' results
        first = next(iter(str(error).strip().splitlines()), "")
        status, message = "failed", f"{type(error).__name__}: {first[:300]}"
    return CellRecord(
        row=cell.row,
        column=cell.column,
        seed=cell.seed,
        status=status,  # type: ignore[arg-type]
        recipe=cell.recipe.to_json_object(),
        num_classes=None if train_set is None else len(train_set.classes),
        last=_share(result.accuracy) if result else None,
        best=_share(result.best_accuracy) if result else None,
        best_epoch=result.best_epoch if result else None,
        steps=result.steps if result else None,
        seconds=round(result.seconds if result else time.monotonic() - began, 3),
        message=message,
        fingerprint="" if train_set is None else train_set.fingerprint,
        device=str(where.process.device),
        machine=_machine(where.process),
        torch=str(torch.__version__),
        finet_deploy=__version__,
    )


def _train(
    cell: Cell, where: Where, observer: Observer, train_set: ImageDataset, val_set: ImageDataset
) -> TrainResult:
    """A new run, or the rest of one. What lies in the folder without a recipe was never a run: it is made anew."""
    folder = run_folder(where.folder, cell)
    resume = (folder / RECIPE_FILE).is_file()
    if not resume and folder.exists():
        with _explained(folder):
            shutil.rmtree(folder)
    return train(
        cell.recipe,
        train_set,
        val_set,
        folder,
        resume=resume,
        process=where.process,
        observer=observer,
        workers=where.workers,
    )


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise explain_os_error(error, "remove", folder) from error


def _share(accuracy: Accuracy) -> Share:
    top1 = accuracy.top1
    return Share(value=top1.value, low=top1.low, high=top1.high, images=accuracy.images)


def _machine(process: Process) -> str:
    """The processor that trained, in words."""
    if process.device.type == "cuda":
        return torch.cuda.get_device_name(process.device)
    info = host_info()
    model, threads = info.cpu_model.value or info.machine.value or "CPU", torch.get_num_threads()
    return f"{model}, {info.cpu_count} CPUs, {threads} thread{'s' * (threads > 1)}"
