"""What an evaluation runs: a network in torch, or the files of a bundle, each in its own runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from finet_deploy.data.dataset import ImageDataset
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.evaluate.evaluation import Evaluation, Runner, evaluate_runners
from finet_deploy.export import Bundle
from finet_deploy.images import Preprocessing
from finet_deploy.runtimes import available_runtimes, require_runtime, run_isolated, runtime_of

__all__ = [
    "bundle_batch_size",
    "bundle_preprocessing",
    "bundle_runners",
    "check_classes",
    "evaluate_bundle",
    "model_runner",
]

# Images that go to a runtime's process at once: its start takes seconds, its time is limited, its input is a file.
MAX_IMAGES, MAX_BYTES = 512, 1 << 28


def check_classes(found: int, dataset: ImageDataset, where: str) -> None:
    """UsageError when a network tells another number of classes apart than the data set has."""
    if found != len(dataset.classes):
        raise UsageError(
            f"the network has {found} classes, {dataset.name} has {len(dataset.classes)}",
            where=where,
            do="choose the data set that it was trained on with --dataset and --data",
        )


def model_runner(model: nn.Module, name: str, device: torch.device | str = "cpu") -> Runner:
    """The network, moved to `device`, in eval mode."""
    model = model.to(device).eval()

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            return model(images.to(device)).cpu()

    return Runner(name, f"torch {torch.__version__}", run)


def bundle_runners(bundle: Bundle, formats: Sequence[str] | None = None, *, threads: int = 1) -> list[Runner]:
    """The files of the bundle (all, or those of `formats`), each run in a process of its own.

    Raises UsageError for a format that the bundle does not have, FinetDeployError for a runtime that is missing.
    """
    versions = available_runtimes()
    runners = []
    for fmt in dict.fromkeys(formats or bundle.formats):
        path, runtime = bundle.artifact_path(fmt), runtime_of(fmt)
        require_runtime(runtime)
        runners.append(Runner(fmt, f"{runtime} {versions[runtime]}", _file_run(path, fmt, threads)))
    return runners


def _file_run(path: Path, fmt: str, threads: int) -> Callable[[Tensor], Tensor]:
    def run(images: Tensor) -> Tensor:
        inputs = {f"{i:06d}": np.ascontiguousarray(image[None].numpy()) for i, image in enumerate(images)}
        outputs = run_isolated(path, fmt, inputs, threads=threads)
        return torch.from_numpy(np.concatenate([outputs[name] for name in inputs]))

    return run


def bundle_preprocessing(bundle: Bundle) -> Preprocessing:
    """How a picture becomes the input. FinetDeployError when the bundle does not say, or contradicts itself."""
    entry, where = bundle.manifest.preprocessing, str(bundle.path)
    if entry is None:
        raise FinetDeployError(
            "the bundle does not say how a picture becomes its input",
            where=where,
            do="export it again with preprocessing=Preprocessing(...)",
        )
    fields: dict[str, Any] = msgspec.to_builtins(entry)
    preprocessing = Preprocessing.from_json_object(fields)
    if tuple(bundle.manifest.input.shape) != (1, 3, preprocessing.crop, preprocessing.crop):
        raise FinetDeployError(
            f"its input is {bundle.manifest.input.shape}, its preprocessing makes {preprocessing.crop} px",
            where=where,
            do="export it again",
        )
    if len(bundle.manifest.output.shape) != 2:
        raise FinetDeployError(
            f"its output {bundle.manifest.output.shape} is not one score a class",
            where=where,
            do="evaluate a classifier",
        )
    return preprocessing


def bundle_batch_size(preprocessing: Preprocessing) -> int:
    """How many images go to a runtime's process at once."""
    return max(1, min(MAX_IMAGES, MAX_BYTES // (12 * preprocessing.crop**2)))


def evaluate_bundle(
    bundle: Bundle,
    dataset: ImageDataset,
    *,
    formats: Sequence[str] | None = None,
    against: Sequence[Runner] = (),
    threads: int = 1,
    workers: int = 0,
    tell: Callable[[str], None] = lambda _step: None,
) -> Evaluation:
    """Every file of the bundle on every image, preprocessed as its manifest says.

    against: other forms to be compared with, which come first. threads: of each runtime.
    Raises UsageError when the numbers of classes differ, FinetDeployError when a runtime is missing or fails.
    """
    preprocessing = bundle_preprocessing(bundle)
    check_classes(bundle.manifest.output.shape[-1], dataset, str(bundle.path))
    return evaluate_runners(
        [*against, *bundle_runners(bundle, formats, threads=threads)],
        dataset,
        preprocessing,
        batch_size=bundle_batch_size(preprocessing),
        workers=workers,
        tell=tell,
    )
