"""What training tells while it goes on: to the logs, and to whoever watches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from finet_deploy.data import Accuracy

__all__ = ["EpochReport", "Observer", "Silent", "Start", "StepReport", "Watchers"]


@dataclass(frozen=True)
class Start:
    """Told once, before the first step. `step`: steps that are already done, more than 0 in a resumed run."""

    folder: Path
    step: int
    total_steps: int
    steps_per_epoch: int
    epochs: int


@dataclass(frozen=True)
class StepReport:
    """One optimizer step. step: counted from 1. loss: the whole batch's mean. images: of the whole batch.

    grad_norm: over all parameters, before clipping. skipped: the step was left out (fp16 overflow).
    """

    step: int
    epoch: int
    lr: float
    loss: float
    grad_norm: float
    correct: int
    images: int
    skipped: bool


@dataclass(frozen=True)
class EpochReport:
    """One epoch, validated. epoch: counted from 1. train_top1: of the augmented batches, as they were trained on.

    accuracy: on the validation split, of the EMA weights where there are some. seconds: of the run so far.
    """

    epoch: int
    step: int
    lr: float
    train_loss: float
    train_top1: float
    accuracy: Accuracy
    best: bool
    seconds: float


class Observer(Protocol):
    """Who is told; a step's report must not cost more than a line of output."""

    def started(self, start: Start) -> None: ...
    def step(self, report: StepReport) -> None: ...
    def epoch(self, report: EpochReport) -> None: ...
    def saved(self, path: Path) -> None: ...
    def note(self, text: str) -> None: ...


class Silent:
    """An observer that does nothing: a base for those that want some of the reports."""

    def started(self, start: Start) -> None:
        """Nothing."""

    def step(self, report: StepReport) -> None:
        """Nothing."""

    def epoch(self, report: EpochReport) -> None:
        """Nothing."""

    def saved(self, path: Path) -> None:
        """Nothing."""

    def note(self, text: str) -> None:
        """Nothing."""


class Watchers(Silent):
    """Several observers as one, told in their order."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def started(self, start: Start) -> None:
        for observer in self._observers:
            observer.started(start)

    def step(self, report: StepReport) -> None:
        for observer in self._observers:
            observer.step(report)

    def epoch(self, report: EpochReport) -> None:
        for observer in self._observers:
            observer.epoch(report)

    def saved(self, path: Path) -> None:
        for observer in self._observers:
            observer.saved(path)

    def note(self, text: str) -> None:
        for observer in self._observers:
            observer.note(text)
