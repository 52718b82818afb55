"""scikit-learn's handwritten digits: real data that ships in the package (1797 images of 8x8, grey levels 0 to 16).

They are the test half of the UCI set "Optical Recognition of Handwritten Digits" (Alpaydin and Kaynak, 1998).
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from finet_deploy.data.dataset import ArrayDataset

__all__ = ["open_digits", "split_digits"]

SIZE = 32
GREY_LEVELS = 16
SPLIT_SEED = 0


def open_digits(split: str) -> ArrayDataset:
    """`train` (1438 images) or `val` (the held-out fifth, 359), each (3, 32, 32)."""
    from sklearn.datasets import load_digits

    data = load_digits()
    labels = data.target.astype(np.int64)
    train, held_out = split_digits(labels)
    chosen = train if split == "train" else held_out
    classes = [str(digit) for digit in range(10)]
    return ArrayDataset("digits", _at_32_px(data.images[chosen]), labels[chosen], classes)


def split_digits(labels: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Indices to train on, and the held-out fifth of each class, both ascending: the same for everyone, always.

    Drawn by numpy's `RandomState`, whose stream is frozen (NEP 19), rather than by scikit-learn's splitters,
    whose use of it may change with a release.
    """
    random = np.random.RandomState(SPLIT_SEED)
    held_out = []
    for label in range(int(labels.max()) + 1):
        own = random.permutation(np.flatnonzero(labels == label))
        held_out.append(own[: round(len(own) / 5)])
    chosen = np.sort(np.concatenate(held_out))
    return np.setdiff1d(np.arange(len(labels)), chosen), chosen


def _at_32_px(images: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(N, 8, 8) of 0 to 16 -> (N, 3, 32, 32), bilinear.

    Every weight and grey level is a short binary fraction, so fp64 is exact and the bytes are the same everywhere.
    """
    grey = torch.from_numpy(images.astype(np.float64))[:, None]
    large = torch.nn.functional.interpolate(grey, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
    pixels = (large * (255 / GREY_LEVELS)).round().to(torch.uint8)
    return pixels.expand(-1, 3, -1, -1).contiguous().numpy()
