"""`finet-deploy train` as a process: killed at a random step, terminated, interrupted; and gone on with to the bit."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from finet_deploy import load_checkpoint
from tests.cli import interrupt_when
from tests.data_sets import make_image_folder
from tests.train_runs import assert_same_run, read_state_file, rows

ROOT = Path(__file__).parents[2]
# 9 steps an epoch, 18 in all; saved after steps 4, 8, 9, 12, 16 and 18. A folder of images: scikit-learn's digits
# take two seconds to import.
OPTIONS = [
    "train", "--recipe", "digits", "--image-size", "8", "--resize", "8", "--no-se", "--batch-size", "50",
    "--epochs", "2", "--lr", "0.02", "--ema-decay", "0.7", "--device", "cpu", "--save-every", "4",
    "--dataset", "folder", "--workers", "0", "--data",
]  # fmt: skip
STEPS = 18


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data") / "images"
    return str(make_image_folder(folder, classes=10, train=45, val=4, size=8))


def command(data: str, folder: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "finet_deploy", *OPTIONS, data, "-o", str(folder), *more]


def finish(data: str, folder: Path, *more: str) -> str:
    done = subprocess.run(command(data, folder, *more), cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stderr


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


def test_a_run_killed_at_a_random_step_goes_on_to_the_bit(reference: Path, data: str, tmp_path: Path) -> None:
    folder, step = tmp_path / "run", random.randrange(1, STEPS - 6)
    process = subprocess.Popen(
        command(data, folder), cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL
    )
    while steps_done(folder) < step and process.poll() is None:
        time.sleep(0.002)
    time.sleep(random.uniform(0, 0.1))  # anywhere in the step that follows, or in what is written after it
    process.kill()
    assert process.wait() == -signal.SIGKILL, f"ended before step {step}"
    print(f"killed after step {steps_done(folder)}, saved: {read_state_file(folder)['/progress/step']}")
    assert "resumed after step" in finish(data, folder, "--resume")
    assert_same_run(folder, reference)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_first_and_gives_its_own_status(
    reference: Path, data: str, tmp_path: Path, number, status: int
) -> None:
    folder = tmp_path / "run"
    found, err = interrupt_when([*OPTIONS, data, "-o", folder], "epoch 1/2", tmp_path, sign=number)
    assert found == status
    assert "Traceback" not in err
    assert f"saved {folder / 'state.pt'}" in err
    done = steps_done(folder)
    assert 9 <= done < STEPS
    assert read_state_file(folder)["/progress/step"] == done
    assert load_checkpoint(folder / "best.safetensors")
    assert f"resumed after step {done}" in finish(data, folder, "--resume")
    assert_same_run(folder, reference)


def test_a_file_size_limit_is_one_readable_error(data: str, tmp_path: Path) -> None:
    """A disk quota, as the process sees it."""
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))"
    code = f"{limit}\nimport sys\nfrom finet_deploy.__main__ import main\nmain()"
    done = subprocess.run(
        [sys.executable, "-c", code, *OPTIONS, data, "-o", str(tmp_path / "run")],
        cwd=ROOT, capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 1
    assert "cannot write: File too large" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run" / "state.pt").exists()
