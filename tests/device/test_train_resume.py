"""`finet-deploy train` as a process: killed at a random step, terminated, interrupted; and gone on with to the bit."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from pathlib import Path

import pytest

from finet_deploy import load_checkpoint
from tests.cli import interrupt_when
from tests.data_sets import make_image_folder
from tests.train_runs import assert_same_run, read_state_file, rows
from tests.warm_process import COMMAND, WarmProcess, run_warm

# 9 steps an epoch, 36 in all; saved after every epoch and every fourth step. A folder of images: scikit-learn's digits
# take two seconds to import.
OPTIONS = [
    "train", "--recipe", "digits", "--image-size", "8", "--resize", "8", "--no-se", "--batch-size", "50",
    "--epochs", "4", "--lr", "0.02", "--ema-decay", "0.7", "--device", "cpu", "--save-every", "4",
    "--dataset", "folder", "--workers", "0", "--data",
]  # fmt: skip
EPOCH, STEPS = 9, 36


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data") / "images"
    return str(make_image_folder(folder, classes=10, train=45, val=4, size=8))


def finish(data: str, folder: Path, *more: str) -> str:
    status, err = run_warm(COMMAND, [*OPTIONS, data, "-o", folder, *more], folder.parent, purpose="training")
    assert status == 0, err
    return err


@pytest.fixture(scope="module")
def reference(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = tmp_path_factory.mktemp("reference") / "run"
    finish(data, folder)
    assert len(rows(folder / "steps.csv")) == STEPS
    return folder


def steps_done(folder: Path) -> int:
    path = folder / "steps.csv"
    return max(0, path.read_text().count("\n") - 1) if path.exists() else 0


def test_a_run_that_is_told_to_stop_or_killed_at_a_random_step_goes_on_to_the_bit(
    reference: Path, data: str, tmp_path: Path
) -> None:
    """One run, ended three times."""
    folder = tmp_path / "run"
    stop(data, folder, 1, signal.SIGTERM, 143)
    stop(data, folder, 2, signal.SIGINT, 130, "--resume")
    kill(data, folder, random.randrange(steps_done(folder) + 1, STEPS - 6))
    assert "resumed after step" in finish(data, folder, "--resume")
    assert_same_run(folder, reference)


def stop(data: str, folder: Path, epoch: int, number: signal.Signals, status: int, *more: str) -> None:
    """A signal after `epoch` saves first and gives its own status; with `--resume` after an earlier one."""
    before = f"resumed after step {steps_done(folder)}"
    arguments = [*OPTIONS, data, "-o", folder, *more]
    found, err = interrupt_when(arguments, f"epoch {epoch}/4", folder.parent, sign=number, warm="training")
    assert found == status
    assert "Traceback" not in err
    assert f"saved {folder / 'state.pt'}" in err
    assert f"go on with: finet-deploy train --resume -o {folder}" in err
    assert not (folder / "result.json").exists()
    done = steps_done(folder)
    assert EPOCH * epoch <= done < STEPS
    assert read_state_file(folder)["/progress/step"] == done
    assert load_checkpoint(folder / "best.safetensors")
    assert (before in err) == bool(more)


def kill(data: str, folder: Path, step: int) -> None:
    """The run goes on, and is killed after `step`: anywhere in the next one, or in what is written after it."""
    arguments = [*OPTIONS, data, "-o", folder, "--resume"]
    with tempfile.TemporaryFile() as stderr:
        process = WarmProcess(COMMAND, arguments, folder.parent, stderr=stderr, purpose="training")
        while steps_done(folder) < step and process.poll() is None:
            time.sleep(0.002)
        time.sleep(random.uniform(0, 0.1))
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL, f"ended before step {step}"
    print(f"killed after step {steps_done(folder)}, saved: {read_state_file(folder)['/progress/step']}")


def test_a_file_size_limit_is_one_readable_error(data: str, tmp_path: Path) -> None:
    """A disk quota, as the process sees it."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))"
    code = f"import sys\nsys.dont_write_bytecode = True\n{limit}\n{COMMAND}"
    status, err = run_warm(code, [*OPTIONS, data, "-o", tmp_path / "run"], tmp_path, purpose="training")
    assert status == 1
    assert "cannot write: File too large" in err.splitlines()[-1]
    assert "Traceback" not in err
    assert not (tmp_path / "run" / "state.pt").exists()
