"""Two processes (Gloo, this machine) against one: the same batch, the same curve; and by torchrun, a killed one."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from finet_deploy.checkpoint import load_checkpoint
from finet_deploy.data import evaluate_model, evaluation_batches
from tests.data_sets import make_image_folder
from tests.ranks import ONE_THREAD, ROOT, launch
from tests.train_runs import VALIDATED, assert_same_run, read_state_file, rows, tiny_recipe, tiny_sets

SAME = {"dropout": 0.0, "sync_norm": True, "lr": 0.002}
TOLERANCE = 1e-7  # fp64 rounding, after eight steps of a network that amplifies it


def curve(folder: Path) -> list[float]:
    return [float(row["loss"]) for row in rows(folder / "steps.csv")]


# With accumulation the micro-batches are other images, so that is compared on a network without norms.
WITHOUT_NORMS = {"model": "squeezenet", "norm": "mimic", "weight_mean": "projection", "last_bn": False}
# A network whose running statistics soon matter.
SOON = {"model": "squeezenet", "norm": "bn", "ema_decay": None, "lr": 0.05, "epochs": 2, "seed": 2}
OTHER = {"num_groups": None, "dropout": None, "sync_norm": False}
RUNS = {
    "whole batches": SAME,
    "accumulated": SAME | WITHOUT_NORMS | OTHER | {"accumulate": 2},
    "norms apart": SAME | SOON | OTHER,
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Path, Path]]:
    """The folders of a run by one process and by two. A process makes all of RUNS: most of its time is its start."""
    base = tmp_path_factory.mktemp("runs")
    for processes in (1, 2):
        runs = [word for name in RUNS for word in (base / f"{name} {processes}", json.dumps(RUNS[name]))]
        launch("tests.train_worker", processes, *runs)
    return lambda name: (base / f"{name} 1", base / f"{name} 2")


@pytest.mark.parametrize("run", ["whole batches", "accumulated"])
def test_two_processes_are_one_with_the_whole_batch(
    trained: Callable[[str], tuple[Path, Path]], run: str
) -> None:
    """Same losses, right answers, gradients and weights."""
    one, two = trained(run)
    assert len(curve(one)) == 8
    assert curve(two) == pytest.approx(curve(one), rel=TOLERANCE)
    for row, expected in zip(rows(two / "steps.csv"), rows(one / "steps.csv")):
        assert float(row["grad_norm"]) == pytest.approx(float(expected["grad_norm"]), rel=1e-6)
        for column in ("step", "epoch", "lr", "correct", "images"):
            assert row[column] == expected[column]
    assert [row["images"] for row in rows(two / "log.csv")] == [
        str(VALIDATED)
    ] * 2  # every validation image once
    for row, expected in zip(rows(two / "log.csv"), rows(one / "log.csv")):
        assert (row["top1"], row["top5"], row["best"]) == (
            expected["top1"],
            expected["top5"],
            expected["best"],
        )
    states = [read_state_file(folder) for folder in (two, one)]
    for name, value in states[1].items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(states[0][name], value, rtol=1e-5, atol=1e-6, msg=name)
    weights = [load_checkpoint(folder / "model.safetensors").state_dict() for folder in (two, one)]
    assert weights[0].keys() == weights[1].keys()


def test_without_synchronized_norms_two_processes_are_not_one(
    trained: Callable[[str], tuple[Path, Path]],
) -> None:
    """The comparison above can fail: statistics of half a batch are others."""
    one, two = trained("norms apart")
    assert curve(two)[0] != pytest.approx(curve(one)[0], rel=1e-4)
    # Each rank's running statistics are its own; those that were validated are those in the checkpoint.
    batches = evaluation_batches(tiny_sets(val=VALIDATED)[1], tiny_recipe().preprocessing(), batch_size=8)
    accuracy = evaluate_model(load_checkpoint(two / "model.safetensors"), batches, "cpu")
    assert json.loads((two / "result.json").read_text())["accuracy"] == accuracy.to_json_object()


OPTIONS = [
    "train", "--recipe", "digits", "--image-size", "8", "--resize", "8", "--no-se", "--batch-size", "60",
    "--epochs", "2", "--lr", "0.02", "--device", "cpu", "--save-every", "4",
    "--dataset", "folder", "--workers", "0", "--data",
]  # fmt: skip
EPOCH = 14  # steps


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("data") / "images"
    return str(make_image_folder(folder, classes=10, train=84, val=4, size=8))


def start(data: str, folder: Path) -> subprocess.Popen[str]:
    """By torchrun, which starts both again once."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--max-restarts", "1"]
    command = [sys.executable, *torchrun, "-m", "finet_deploy", *OPTIONS, data, "-o", str(folder)]
    return subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=ONE_THREAD
    )


def workers_of(agent: int) -> list[int]:
    """The training processes that there are, by rank."""
    children = Path(f"/proc/{agent}/task/{agent}/children").read_text().split()
    ranks = {}
    for child in children:
        try:
            variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        except OSError:  # it has ended since
            continue
        for variable in variables:
            if variable.startswith(b"RANK="):
                ranks[int(variable[5:])] = int(child)
    return [ranks[rank] for rank in sorted(ranks)]


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    path = folder / "steps.csv"
    while not (path.exists() and path.read_text().count("\n") > step):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


def wait_for_restart(process: subprocess.Popen[str], first: list[int]) -> None:
    while len(found := workers_of(process.pid)) < 2 or set(found) & set(first):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


@pytest.fixture(scope="module")
def uninterrupted(data: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reference") / "run"
    launch("tests.ranks", 2, *OPTIONS, data, "-o", folder)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_a_run_whose_processes_are_killed_and_restarted_then_stopped_ends_as_if_nothing_had_been(
    uninterrupted: Path, data: str, tmp_path: Path
) -> None:
    """A killed process is started again, and the other with it; a signal to one stops both after the same step."""
    folder = tmp_path / "run"
    process = start(data, folder)
    wait_for_step(folder, 5, process)
    first = workers_of(process.pid)
    os.kill(first[1], signal.SIGKILL)
    wait_for_restart(process, first)
    wait_for_step(folder, 18, process)
    os.kill(workers_of(process.pid)[1], signal.SIGTERM)
    _, err = process.communicate(timeout=300)
    assert process.returncode != 0
    (saved,) = re.findall(rf"{re.escape(str(folder))}: resumed after step (\d+)", err)
    assert int(saved) >= 4
    done = len(rows(folder / "steps.csv"))
    assert f"saved {folder / 'state.pt'}" in err
    assert read_state_file(folder)["/progress/step"] == done < 2 * EPOCH  # did not go on to the end
    err = launch("tests.ranks", 2, *OPTIONS, data, "-o", folder, "--resume")
    assert f"{folder}: resumed after step {done}\n" in err
    assert_same_run(folder, uninterrupted)
