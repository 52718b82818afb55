"""The logs: rows that can be compared to the bit, cut to the step that a resumed run goes on from."""

from __future__ import annotations

import csv
import os
import struct
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finet_deploy.data.accuracy import Accuracy, wilson
from finet_deploy.errors import FinetDeployError
from finet_deploy.train import EpochReport, Start, StepReport
from finet_deploy.train.logs import CsvLog, TensorBoardLog

SPE = 4


def step_report(step: int, loss: float = 0.5) -> StepReport:
    return StepReport(step, (step - 1) // SPE + 1, 0.1 / step, loss, 1 / 3, 3, 8, False)


def epoch_report(epoch: int, top5: bool = True) -> EpochReport:
    accuracy = Accuracy(wilson(3 + epoch, 10), wilson(9, 10) if top5 else None, 3 + epoch, 10)
    return EpochReport(epoch, epoch * SPE, 0.1, 1 / 3, 0.25, accuracy, epoch == 1, 12.3456 * epoch)


def run(log: CsvLog, folder: Path, first: int, last: int) -> None:
    """Steps first..last and the epochs that end with them."""
    log.started(Start(folder, first - 1, 100, SPE, 25))
    for step in range(first, last + 1):
        log.step(step_report(step))
        if step % SPE == 0:
            log.epoch(epoch_report(step // SPE))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 20), st.integers(0, 20), st.integers(0, 60))
def test_a_resumed_log_is_the_uninterrupted_one(tmp_path_factory, reached: int, back: int, torn: int) -> None:
    """Killed after `reached` steps and in the middle of a row; resumed from a state `back` steps earlier."""
    whole, broken = tmp_path_factory.mktemp("whole"), tmp_path_factory.mktemp("broken")
    run(CsvLog(whole), whole, 1, 22)
    run(CsvLog(broken), broken, 1, reached)
    for name in ("steps.csv", "log.csv"):
        with (broken / name).open("a") as stream:
            stream.write(f"{reached + 1},1,0.1234567890123456789012345678901234567890123456789,1"[:torn])
    resumed = max(0, reached - back)
    run(CsvLog(broken), broken, resumed + 1, 22)
    for name in ("steps.csv", "log.csv"):
        assert (broken / name).read_text() == (whole / name).read_text()


def test_floats_keep_all_their_digits_and_columns_their_names(tmp_path: Path) -> None:
    loss = struct.unpack("<d", struct.pack("<Q", 0x3FD5555555555557))[0]
    log = CsvLog(tmp_path)
    log.started(Start(tmp_path, 0, 4, SPE, 1))
    log.step(step_report(1, loss))
    log.epoch(epoch_report(1, top5=False))
    (step,) = csv.DictReader((tmp_path / "steps.csv").open())
    assert float(step["loss"]) == loss and step["skipped"] == "0"
    assert (step["step"], step["epoch"], step["correct"], step["images"]) == ("1", "1", "3", "8")
    (epoch,) = csv.DictReader((tmp_path / "log.csv").open())
    assert float(epoch["top1"]) == 0.4 and float(epoch["top1_low"]) < 0.4 < float(epoch["top1_high"])
    assert (epoch["top5"], epoch["best"], epoch["images"], epoch["seconds"]) == ("", "1", "10", "12.346")


def test_a_new_run_starts_its_logs_anew(tmp_path: Path) -> None:
    (tmp_path / "steps.csv").write_text("old\n1\n")
    run(CsvLog(tmp_path), tmp_path, 1, 2)
    assert [row["step"] for row in csv.DictReader((tmp_path / "steps.csv").open())] == ["1", "2"]


def test_a_log_that_is_none_and_a_disk_that_is_full_are_readable_errors(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FinetDeployError, match=r"not a log .*log\.csv.*remove the file"):
        CsvLog(tmp_path).started(Start(tmp_path, 3, 4, SPE, 1))
    folder = tmp_path / "full"
    folder.mkdir()
    os.symlink("/dev/full", folder / "steps.csv")
    with pytest.raises(FinetDeployError, match=r"cannot write: No space left.*free some space"):
        CsvLog(folder).step(step_report(1))


def test_tensorboard_gets_the_scalars_and_forgets_what_an_interrupted_run_had_ahead(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert TensorBoardLog.available()
    for first, last, loss in ((0, 5, 1.0), (3, 4, 2.0)):
        log = TensorBoardLog(tmp_path)
        log.started(Start(tmp_path, first, 8, SPE, 2))
        for step in range(first + 1, last + 1):
            log.step(step_report(step, loss))
        if last == 4:
            log.epoch(epoch_report(1))
        log.close()
        time.sleep(1.1)  # files are read in the order of their names, which tell the second
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(1, 1), (2, 1), (3, 1), (4, 2)]
    (top1,) = events.Scalars("validation/top1")
    assert (top1.step, round(top1.value, 6)) == (4, 0.4)
    assert {"train/lr", "train/top1", "validation/top5"} <= set(events.Tags()["scalars"])
