"""`state.pt`: everything that a run needs to go on as if it had never stopped.

Written whole or not at all, and read with `weights_only=True`: it holds tensors, numbers and text, and no code can
come out of it. Random generators are not in it, for each step and each sample draws from a seed of its own.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import msgspec
import torch

from finet_deploy.data import Accuracy
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.files import atomic_write_bytes, read_bounded
from finet_deploy.train.diagnose import NotFinite, first_bad_tensor
from finet_deploy.train.learner import Learner

__all__ = ["STATE_FILE", "Identity", "Progress", "read_state", "restore", "write_state"]

STATE_FILE = "state.pt"
SCHEMA_VERSION = 1
MAX_STATE_BYTES = 16 << 30
# Fields of a recipe that say what it is, not what it does.
DESCRIPTIVE = frozenset({"name", "description", "source"})


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Which run a state belongs to: a resume under another identity would be another run."""

    recipe: dict[str, Any]
    model: dict[str, Any]
    dataset: str
    fingerprint: str

    def differences(self, other: Identity) -> list[str]:
        """What differs, as `field: ours, not theirs`."""
        recipe = sorted((self.recipe.keys() | other.recipe.keys()) - DESCRIPTIVE)
        model = sorted(self.model.keys() | other.model.keys())
        pairs = [(name, self.recipe.get(name), other.recipe.get(name)) for name in recipe]
        pairs += [(f"model {name}", self.model.get(name), other.model.get(name)) for name in model]
        pairs.append(("dataset", self.dataset, other.dataset))
        pairs.append(("the dataset's fingerprint", self.fingerprint, other.fingerprint))
        return [
            f"{name}: {_plain(found)}, not {_plain(wanted)}"
            for name, found, wanted in pairs
            if _plain(found) != _plain(wanted)
        ]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


class Progress(msgspec.Struct, kw_only=True):
    """How far the run is. step: optimizer steps done, which is the position in the data too.

    epochs: done *and* validated. loss_sum, correct, images: of the epoch under way.
    """

    step: int = 0
    epochs: int = 0
    skipped_steps: int = 0
    seconds: float = 0.0
    loss_sum: float = 0.0
    correct: int = 0
    images: int = 0
    skipped_images: list[str] = []
    accuracy: Accuracy | None = None
    best_accuracy: Accuracy | None = None
    best_epoch: int = 0
    world_size: int = 1


def write_state(path: Path, learner: Learner, progress: Progress, identity: Identity) -> None:
    """Save the state under `path`, or leave what is there.

    Raises FinetDeployError when the disk is full, NotFinite when a weight or statistic is not finite: that is no
    state to go back to.
    """
    if bad := first_bad_tensor(learner.model.state_dict().items()):
        raise NotFinite("the weights are not finite", f"first in {bad}")
    scaler, ema = learner.scaler, learner.ema
    state = {
        "schema_version": SCHEMA_VERSION,
        "identity": msgspec.to_builtins(identity),
        "progress": msgspec.to_builtins(progress),
        "model": learner.model.state_dict(),
        "optimizer": learner.optimizer.state_dict(),
        "scaler": None if scaler is None else scaler.state_dict(),
        "ema": None if ema is None else ema.state_dict(),
    }
    buffer = io.BytesIO()
    torch.save(state, buffer)
    atomic_write_bytes(path, buffer.getvalue())


def read_state(path: Path) -> bytes:
    """The file's bytes; FinetDeployError when it cannot be read."""
    return read_bounded(path, MAX_STATE_BYTES)


def restore(data: bytes, learner: Learner, identity: Identity, path: Path) -> Progress:
    """Put a saved state into `learner`, and tell how far it was.

    Raises FinetDeployError for a truncated or foreign file, UsageError naming the fields when it is the state of
    another run.
    """
    state = _parse(data, path)
    try:
        saved = msgspec.convert(state["identity"], Identity)
        progress = msgspec.convert(state["progress"], Progress)
    except (msgspec.ValidationError, KeyError, TypeError) as error:
        raise _unusable(path, error) from error
    if found := saved.differences(identity):
        raise UsageError(
            f"the run in this folder is another one: it has {'; '.join(found)}",
            where=str(path),
            do="resume with the values it was started with, or choose another folder",
        )
    try:
        learner.model.load_state_dict(state["model"])
        learner.optimizer.load_state_dict(state["optimizer"])
        if learner.scaler is not None:
            learner.scaler.load_state_dict(state["scaler"])
        if learner.ema is not None:
            learner.ema.load_state_dict(state["ema"])
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise _unusable(path, error) from error
    return progress


def _parse(data: bytes, path: Path) -> dict[str, Any]:
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError, AttributeError, IndexError,
    ) as error:  # fmt: skip
        raise _unusable(path, error) from error
    if not isinstance(state, dict) or state.get("schema_version") != SCHEMA_VERSION:
        raise FinetDeployError(
            "not a training state that this release reads",
            where=str(path),
            do="resume with the release that wrote it",
        )
    return state


def _unusable(path: Path, error: Exception) -> FinetDeployError:
    first = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return FinetDeployError(
        f"truncated or not a training state: {first[:200]}",
        where=str(path),
        do="train again into another folder; the checkpoints beside it are files of their own",
    )
