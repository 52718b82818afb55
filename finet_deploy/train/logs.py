"""The run's logs: `log.csv` (a row an epoch), `steps.csv` (a row a step), and TensorBoard's, where it is installed.

A resumed run cuts the rows behind the step it goes on from, so that the logs of an interrupted run are those of an
uninterrupted one, times aside.
"""

from __future__ import annotations

import csv
import importlib.util
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finet_deploy.errors import FinetDeployError
from finet_deploy.files import atomic_write_text, explain_os_error, read_bounded
from finet_deploy.train.reports import EpochReport, Silent, Start, StepReport

if TYPE_CHECKING:
    from torch.utils.tensorboard.writer import SummaryWriter

__all__ = ["EPOCHS_FILE", "STEPS_FILE", "CsvLog", "TensorBoardLog"]

EPOCHS_FILE, STEPS_FILE = "log.csv", "steps.csv"
MAX_LOG_BYTES = 1 << 30
EPOCH_COLUMNS = (
    "epoch", "step", "lr", "train_loss", "train_top1",
    "top1", "top1_low", "top1_high", "top5", "images", "best", "seconds",
)  # fmt: skip
STEP_COLUMNS = ("step", "epoch", "lr", "loss", "grad_norm", "correct", "images", "skipped")


class CsvLog(Silent):
    """Both CSV files. Every row is written out at once: what a killed run has done is there to be read."""

    def __init__(self, folder: Path) -> None:
        self._epochs, self._steps = folder / EPOCHS_FILE, folder / STEPS_FILE

    def started(self, start: Start) -> None:
        _cut(self._epochs, EPOCH_COLUMNS, start.step)
        _cut(self._steps, STEP_COLUMNS, start.step)

    def step(self, report: StepReport) -> None:
        _append(self._steps, [_text(getattr(report, column)) for column in STEP_COLUMNS])

    def epoch(self, report: EpochReport) -> None:
        top1, top5 = report.accuracy.top1, report.accuracy.top5
        values = {
            "top1": top1.value,
            "top1_low": top1.low,
            "top1_high": top1.high,
            "top5": None if top5 is None else top5.value,
            "images": report.accuracy.images,
            "seconds": round(report.seconds, 3),
        }
        row = [values[column] if column in values else getattr(report, column) for column in EPOCH_COLUMNS]
        _append(self._epochs, [_text(value) for value in row])


def _text(value: Any) -> str:
    """Floats with all their digits (`repr`), so that logs can be compared to the bit; nothing for None."""
    if value is None:
        return ""
    return str(int(value)) if isinstance(value, bool) else repr(value)


def _append(path: Path, row: list[str]) -> None:
    try:
        with path.open("a", encoding="utf-8", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerow(row)
    except OSError as error:
        raise explain_os_error(error, "write", path) from error


def _cut(path: Path, columns: tuple[str, ...], step: int) -> None:
    """Keep the rows up to `step`: what was written after the state that is resumed will be written again."""
    rows: list[list[str]] = []
    if step and path.exists():
        try:
            rows = list(csv.reader(io.StringIO(read_bounded(path, MAX_LOG_BYTES).decode("utf-8"))))
        except (UnicodeDecodeError, csv.Error) as error:
            raise FinetDeployError("not a log", where=str(path), do="remove the file") from error
    position = columns.index("step")
    kept = [row for row in rows[1:] if len(row) == len(columns) and _is_step(row[position], step)]
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([list(columns), *kept])
    atomic_write_text(path, stream.getvalue())


def _is_step(text: str, last: int) -> bool:
    return text.isdecimal() and int(text) <= last


class TensorBoardLog(Silent):
    """Scalars under `tensorboard/`; `available()` tells whether the package is there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "tensorboard"
        self._writer: SummaryWriter | None = None

    @staticmethod
    def available() -> bool:
        """Whether TensorBoard is installed (the `train` extra)."""
        return importlib.util.find_spec("tensorboard") is not None

    def started(self, start: Start) -> None:
        from torch.utils.tensorboard.writer import SummaryWriter

        # purge_step hides what an earlier, interrupted process had logged beyond the state we go on from.
        self._writer = SummaryWriter(str(self._folder), purge_step=start.step + 1 if start.step else None)

    def step(self, report: StepReport) -> None:
        self._add("train/loss", report.loss, report.step)
        self._add("train/lr", report.lr, report.step)

    def epoch(self, report: EpochReport) -> None:
        self._add("train/top1", report.train_top1, report.step)
        self._add("validation/top1", report.accuracy.top1.value, report.step)
        if report.accuracy.top5 is not None:
            self._add("validation/top5", report.accuracy.top5.value, report.step)

    def _add(self, tag: str, value: float, step: int) -> None:
        if self._writer is not None:
            try:
                self._writer.add_scalar(tag, value, step)
            except OSError as error:  # of its writing thread
                raise explain_os_error(error, "write", self._folder) from error

    def close(self) -> None:
        """Write out what is buffered. FinetDeployError when the disk does not take it."""
        if self._writer is not None:
            try:
                self._writer.close()
            except OSError as error:
                raise explain_os_error(error, "write", self._folder) from error
