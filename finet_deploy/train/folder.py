"""The run folder: what is in it, who may write into it, and the checkpoints that come out of it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from finet_deploy import __version__
from finet_deploy.checkpoint import save_checkpoint
from finet_deploy.data import Accuracy
from finet_deploy.errors import UsageError
from finet_deploy.files import atomic_write_bytes
from finet_deploy.json_files import encode_json
from finet_deploy.train.learner import Learner
from finet_deploy.train.state import STATE_FILE, Identity, Progress, read_state

if TYPE_CHECKING:
    from finet_deploy.data import ImageDataset

__all__ = ["BEST_FILE", "CHECKPOINT_FILE", "RECIPE_FILE", "RESULT_FILE", "TrainResult"]
__all__ += ["claim_folder", "identity_of", "training_record", "write_best", "write_recipe", "write_result"]

RECIPE_FILE, RESULT_FILE = "recipe.json", "result.json"
CHECKPOINT_FILE, BEST_FILE = "model.safetensors", "best.safetensors"


@dataclass(frozen=True)
class TrainResult:
    """A finished run. accuracy: of `checkpoint`; best_accuracy: of `best`, the best epoch by top-1 of the
    validation split (chosen on it, so a little flattered). seconds: of training, over all resumed parts."""

    folder: Path
    checkpoint: Path
    best: Path
    epochs: int
    steps: int
    accuracy: Accuracy
    best_accuracy: Accuracy
    best_epoch: int
    seconds: float

    @classmethod
    def of(cls, folder: Path, progress: Progress) -> TrainResult:
        """The result of a run whose last epoch is validated."""
        assert progress.accuracy is not None and progress.best_accuracy is not None  # narrows the types
        return cls(
            folder=folder,
            checkpoint=folder / CHECKPOINT_FILE,
            best=folder / BEST_FILE,
            epochs=progress.epochs,
            steps=progress.step,
            accuracy=progress.accuracy,
            best_accuracy=progress.best_accuracy,
            best_epoch=progress.best_epoch,
            seconds=progress.seconds,
        )


def claim_folder(folder: Path, *, resume: bool, restarted: bool) -> bytes | None:
    """The saved state to go on from, None for a new run.

    Raises UsageError when the folder holds something and nobody said `resume`, or when there is nothing to resume.
    restarted: torchrun restarted the processes; then a run that is there is gone on with without being told.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError("output exists and is not a folder", where=str(folder), do="choose another folder")
    started = (folder / RECIPE_FILE).is_file()
    if not (resume or (restarted and started)):
        if folder.exists() and any(folder.iterdir()):
            do = "resume the run that is in it (--resume), or choose another folder"
            raise UsageError("output already exists", where=str(folder), do=do)
        return None
    if resume and not started:
        raise UsageError("no run to resume", where=str(folder), do="leave --resume out, or check the folder")
    state = folder / STATE_FILE
    return read_state(state) if state.is_file() else None


def write_recipe(folder: Path, recipe: dict[str, Any]) -> None:
    """`recipe.json`: every value that the run was made with."""
    _write_json(folder / RECIPE_FILE, recipe)


def write_best(folder: Path, learner: Learner, training: dict[str, Any]) -> None:
    """`best.safetensors`."""
    _write_checkpoint(folder / BEST_FILE, learner, training)


def write_result(result: TrainResult, learner: Learner, progress: Progress, training: dict[str, Any]) -> None:
    """`model.safetensors` (the last weights) and `result.json`, which is written last: who finds it, finds all."""
    _write_checkpoint(result.checkpoint, learner, training)
    config: Any = learner.model.model_config
    document = {
        "schema_version": 1,
        "model": config.title,
        "parameters": sum(parameter.numel() for parameter in learner.evaluated.parameters()),
        **training,
        "epochs": result.epochs,
        "steps": result.steps,
        "best_accuracy": asdict(result.best_accuracy),
        "best_epoch": result.best_epoch,
        "skipped_steps": progress.skipped_steps,
        "skipped_images": progress.skipped_images,
        "seconds": round(result.seconds, 3),
        "device": str(learner.process.device),
        "processes": learner.process.world_size,
        "torch": str(torch.__version__),
        "finet_deploy": __version__,
    }
    _write_json(result.folder / RESULT_FILE, document)


def training_record(
    recipe: dict[str, Any], dataset: ImageDataset, progress: Progress, accuracy: Accuracy
) -> dict[str, Any]:
    """What a checkpoint remembers of its training. No times in it: the same run writes the same file."""
    return {
        "recipe": recipe,
        "dataset": dataset.name,
        "fingerprint": dataset.fingerprint,
        "classes": list(dataset.classes),
        "epoch": progress.epochs,
        "step": progress.step,
        "accuracy": asdict(accuracy),
    }


def identity_of(recipe: dict[str, Any], learner: Learner, dataset: ImageDataset) -> Identity:
    """Which run a state in this folder belongs to."""
    model = learner.model.model_config.to_json_object()  # type: ignore[union-attr,operator]
    return Identity(recipe=recipe, model=model, dataset=dataset.name, fingerprint=dataset.fingerprint)


def _write_checkpoint(path: Path, learner: Learner, training: dict[str, Any]) -> None:
    save_checkpoint(
        learner.evaluated,
        path,
        config=learner.model.model_config,  # type: ignore[arg-type]
        preprocessing=learner.recipe.preprocessing(),
        training=training,
        trained=True,
    )


def _write_json(path: Path, value: Any) -> None:
    atomic_write_bytes(path, encode_json(value))
