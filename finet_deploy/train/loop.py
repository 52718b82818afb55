"""Training: epochs of steps, a validation after each, and a state to go on from whenever the process ends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from finet_deploy.train.diagnose import NotFinite
from finet_deploy.train.distributed import Process
from finet_deploy.train.folder import TrainResult
from finet_deploy.train.interrupt import Interrupt
from finet_deploy.train.reports import Observer
from finet_deploy.train.run import Run
from finet_deploy.train.schedule import lr_at
from finet_deploy.train.step import draw_from, take_step

if TYPE_CHECKING:
    from torch import nn

    from finet_deploy.data import ImageDataset
    from finet_deploy.train.recipes import Recipe

__all__ = ["train"]


def train(
    recipe: Recipe,
    train_set: ImageDataset,
    val_set: ImageDataset,
    folder: Path | str,
    *,
    resume: bool = False,
    process: Process | None = None,
    observer: Observer | None = None,
    save_every: int | None = None,
    workers: int = 0,
    start: nn.Module | None = None,
) -> TrainResult:
    """Train the recipe's network on `train_set`, validate on `val_set` after each epoch, leave all in `folder`.

    The folder: `recipe.json`, `log.csv`, `steps.csv`, `tensorboard/`, `state.pt` (each epoch, and every
    `save_every` steps), `best.safetensors`, and at the end `model.safetensors` and `result.json`.

    resume: go on from `state.pt`, to the bit on a CPU; so does a run that torchrun restarted. workers: processes
    that read images. start: a trained network whose weights are taken first (`load_checkpoint`). SIGTERM and Ctrl-C
    save the state first, then take their course.

    Raises UsageError for a folder in use, a state of another run, a batch that cannot be split or has too few
    values; FinetDeployError when the loss is not finite (step, layer and last good state named), or the disk full.
    """
    process = process or Process()
    with process.group(), Interrupt() as interrupt, _callers_random_state(process):
        run = Run(
            recipe, train_set, val_set, Path(folder), process, interrupt, observer, save_every, workers, start
        )
        with contextlib.closing(run):
            run.open(resume=resume)
            while run.progress.epochs < recipe.epochs:
                _train_epoch(run)
                run.validate()
            return run.finish()


def _train_epoch(run: Run) -> None:
    """The steps of the epoch under way that are not done yet: none, when it only waits for its validation."""
    progress, recipe, steps_per_epoch = run.progress, run.recipe, run.batches.num_batches
    first = progress.step - progress.epochs * steps_per_epoch
    run.learner.model.train()
    if first == steps_per_epoch:
        return
    for batch in run.batches.epoch(progress.epochs, first):
        draw_from(recipe.seed, progress.step, run.process.rank)
        lr = lr_at(recipe, progress.step, steps_per_epoch)
        try:
            outcome = take_step(run.learner, batch.images, batch.labels, lr, run.interrupt.requested)
        except NotFinite as error:
            raise run.explain(error, progress.step + 1) from error
        run.count(outcome, lr, batch.skipped)
        if outcome.stop:
            run.leave(outcome.stop)
        if run.save_every and progress.step % run.save_every == 0:
            run.save()


@contextlib.contextmanager
def _callers_random_state(process: Process) -> Iterator[None]:
    """Every step seeds torch's generators: whoever called gets back what was there."""
    devices = [process.device] if process.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        yield
