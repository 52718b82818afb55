"""The images that activation ranges are measured on, and what the manifest says about them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from finet_deploy.data.names import DATASETS
from finet_deploy.data.opening import indexed_batches, limited, open_dataset
from finet_deploy.errors import FinetDeployError, UsageError, suggest
from finet_deploy.images import GOLDEN_PHOTOS, Preprocessing, default_images, folder_images

__all__ = ["BUILT_IN", "IMAGES", "Calibration", "calibration_of", "load_calibration"]

BUILT_IN = "photos"
IMAGES = 64  # enough for extremes to settle on the networks at hand, and half a minute for a large one
MIN_IMAGES = GOLDEN_PHOTOS + 2
_SMALLEST_RANGE = 1e-6


@dataclass(frozen=True)
class Calibration:
    """images: (N, 3, H, W) to measure ranges on; held_out: (M, 3, H, W) of the same source, to judge on.

    source: a folder's name or a data set's. built_in: nobody chose images, the package's own photographs are used.
    """

    images: Tensor
    held_out: Tensor
    source: str
    built_in: bool

    @property
    def sha256(self) -> str:
        """Over the values of the images that ranges are measured on."""
        return hashlib.sha256(self.images.contiguous().numpy().tobytes()).hexdigest()


def load_calibration(
    source: str | None, preprocessing: Preprocessing, *, count: int = IMAGES, seed: int = 0
) -> Calibration:
    """Images of a folder, of a data set in the package, or (`None`) the built-in photographs, and crops of them.

    Raises UsageError for an unknown name, FinetDeployError for too few images, or ones without content.
    """
    if source is None or source == BUILT_IN:
        images, name = default_images(count, preprocessing, seed=seed), BUILT_IN
    elif source in DATASETS and not Path(source).is_dir():
        images, name = _of_dataset(source, count, preprocessing), source
    else:
        if not Path(source).is_dir():
            names = [BUILT_IN, *_in_package()]
            raise UsageError(
                "no such folder of calibration images, nor a name that needs no folder",
                where=source,
                do=suggest(source, names) or f"give a folder of your images, or {', '.join(names)}",
            )
        images, name = folder_images(source, count, preprocessing), Path(source).resolve().name
    return calibration_of(images, name, built_in=source is None)


def _in_package() -> list[str]:
    return [name for name, info in DATASETS.items() if info.in_package]


def _of_dataset(name: str, count: int, preprocessing: Preprocessing) -> Tensor:
    if not DATASETS[name].in_package:
        raise UsageError(
            f"{name} is not in the package", do="give --calibrate the folder that holds its images"
        )
    dataset = limited(open_dataset(name, "train"), count)
    batches = indexed_batches(dataset, preprocessing, batch_size=64)
    return torch.cat([batch.images for _, batch in batches])


def calibration_of(images: Tensor, source: str, *, built_in: bool = False) -> Calibration:
    """Check the images and hold `GOLDEN_PHOTOS` of them, evenly spread, out.

    Raises UsageError for another shape or dtype; FinetDeployError for NaN, too few images, constant ones, or all equal.
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.dtype != torch.float32:
        raise UsageError(
            f"calibration images are {images.dtype} {tuple(images.shape)}", do="give fp32 (N, 3, H, W)"
        )
    more = (
        f"give a folder with at least {MIN_IMAGES} pictures of what the network will see (some 64 are better)"
    )
    if len(images) < MIN_IMAGES:
        plural = "" if len(images) == 1 else "s"
        raise FinetDeployError(
            f"{len(images)} calibration image{plural}: too few for ranges and a judgement apart from them",
            where=source,
            do=more,
        )
    if not bool(torch.isfinite(images).all()):
        raise FinetDeployError("calibration images with NaN or infinite values", where=source, do=more)
    flat, channels = images.flatten(1), images.flatten(2)
    deviations = channels.amax(2) - channels.amin(2)
    if not bool((deviations > _SMALLEST_RANGE).any()):
        raise FinetDeployError("every calibration image is one constant colour", where=source, do=more)
    if bool((flat == flat[:1]).all()):
        raise FinetDeployError(f"all {len(images)} calibration images are the same", where=source, do=more)
    step = len(images) / GOLDEN_PHOTOS
    held = [int(step * (i + 0.5)) for i in range(GOLDEN_PHOTOS)]
    kept = [i for i in range(len(images)) if i not in held]
    return Calibration(images[kept].contiguous(), images[held].contiguous(), source, built_in)
