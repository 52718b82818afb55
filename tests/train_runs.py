"""Small training runs for the tests: digits at 8 px, a narrow network, a second or two; and what a folder holds."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch

from finet_deploy.data import ImageDataset, open_dataset
from finet_deploy.data.dataset import Selection
from finet_deploy.train import Silent, StepReport
from finet_deploy.train.recipes import Recipe

# Digits at 8 px with dropout, EMA and random crops: all that draws numbers or keeps a state.
TINY = Recipe(
    name="tiny",
    model="finet_small",
    num_groups=4,
    cifar=True,
    dataset="digits",
    image_size=8,
    resize=8,
    crop_padding=1,
    rotation=10.0,
    epochs=2,
    batch_size=16,
    lr=0.02,
    schedule="cosine",
    warmup_epochs=1.0,
    weight_decay=5e-4,
    ema_decay=0.7,
)


VALIDATED = 79  # held-out images of a distributed run: the processes' parts are not equal


def tiny_recipe(**changes: Any) -> Recipe:
    """That recipe, with changes."""
    return TINY.with_overrides(**changes)


def tiny_sets(train: int = 64, val: int = 40) -> tuple[ImageDataset, ImageDataset]:
    """The first digits of each split."""
    return (
        Selection(open_dataset("digits", "train"), range(train)),
        Selection(open_dataset("digits", "val"), range(val)),
    )


class Crash(RuntimeError):
    """The process dies here, as far as files are concerned."""


class CrashAt(Silent):
    """An observer that ends training after step `step` was logged and before anything else is written."""

    def __init__(self, step: int) -> None:
        self._step = step

    def step(self, report: StepReport) -> None:
        if report.step == self._step:
            raise Crash


def flat(value: Any, prefix: str = "") -> dict[str, Any]:
    """A nested state as one level: `optimizer/state/0/momentum_buffer`."""
    if isinstance(value, dict | list | tuple):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {name: leaf for key, item in items for name, leaf in flat(item, f"{prefix}/{key}").items()}
    return {prefix: value}


def read_state_file(folder: Path) -> dict[str, Any]:
    """All leaves of `state.pt`, the clock aside."""
    state = flat(torch.load(folder / "state.pt", weights_only=True))
    del state["/progress/seconds"]
    return state


def rows(path: Path) -> list[dict[str, str]]:
    """A CSV log without its column of times."""
    with path.open(newline="") as stream:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(stream)]


def assert_same_run(folder: Path, reference: Path) -> None:
    """Every file of two runs is the same to the bit, times aside."""
    found, expected = read_state_file(folder), read_state_file(reference)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        same = torch.equal(found[name], value) if isinstance(value, torch.Tensor) else found[name] == value
        assert same, name
    assert rows(folder / "log.csv") == rows(reference / "log.csv")
    assert (folder / "steps.csv").read_text() == (reference / "steps.csv").read_text()
    for name in ("model.safetensors", "best.safetensors", "recipe.json"):
        assert (folder / name).read_bytes() == (reference / name).read_bytes(), name
