"""What a data set is to the rest of the tool, and the two that are made from another one or from memory.

Shape letters: N images, H and W in pixels. Images are uint8 RGB until they are standardized.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finet_deploy.errors import FinetDeployError, UsageError

__all__ = ["ArrayDataset", "BadImage", "Batch", "ImageDataset", "Selection", "fingerprint", "spread"]

Split = str  # "train" or "val"; checked where a data set is opened


class BadImage(FinetDeployError):
    """One image that cannot be read. `name` says which; with `--skip-bad-images` it is left out and counted."""

    def __init__(self, reason: str, name: str) -> None:
        self.reason, self.name = reason, name
        super().__init__(
            f"cannot read image: {reason}", where=name, do="replace the file, or give --skip-bad-images"
        )

    def __reduce__(self) -> tuple[type[BadImage], tuple[str, str]]:
        """For its way out of a worker process."""
        return BadImage, (self.reason, self.name)


class ImageDataset(Protocol):
    """Images by index.

    classes: their names, by label. fingerprint: short hash of what it holds (names, labels, sizes), so that a run
    is not continued on other data. skip_bad_images: whether an image that raises `BadImage` may be left out.
    """

    @property
    def name(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def skip_bad_images(self) -> bool: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """(uint8 (3, H, W), label). Raises BadImage, naming the file."""
        ...


class Batch(NamedTuple):
    """images: (N, 3, H, W) fp32, standardized. labels: (N,) int64. skipped: names of unreadable images, left out."""

    images: Tensor
    labels: Tensor
    skipped: tuple[str, ...] = ()


class ArrayDataset:
    """A data set that is in memory: images (N, 3, H, W) uint8, labels (N,) integers in range(len(classes))."""

    skip_bad_images = False

    def __init__(
        self, name: str, images: NDArray[np.uint8], labels: NDArray[np.int64], classes: Sequence[str]
    ) -> None:
        if images.ndim != 4 or images.shape[1] != 3 or images.dtype != np.uint8 or len(images) != len(labels):
            raise UsageError(
                f"images are {images.dtype} {images.shape}, labels {labels.shape}",
                do="give uint8 (N, 3, H, W) and N labels",
            )
        check_labels(labels, len(classes), name)
        self.name, self.classes = name, tuple(classes)
        self._images, self._labels = torch.from_numpy(images), [int(label) for label in labels]
        self.fingerprint = fingerprint([name, *classes], [images, np.asarray(labels, dtype="<i8")])

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._images[index], self._labels[index]


def check_labels(labels: NDArray[np.int64], num_classes: int, where: str) -> None:
    """FinetDeployError, naming the first one, when a label is not in range(num_classes)."""
    wrong = np.flatnonzero((labels < 0) | (labels >= num_classes))
    if len(wrong):
        index = int(wrong[0])
        raise FinetDeployError(
            f"{len(wrong)} labels are out of range: image {index} has label {int(labels[index])}, "
            f"there are {num_classes} classes (0 to {num_classes - 1})",
            where=where,
            do="correct the labels",
        )


class Selection:
    """Some images of another data set, by their indices there."""

    def __init__(self, dataset: ImageDataset, indices: Sequence[int]) -> None:
        self._dataset, self.indices = dataset, tuple(indices)
        self.name, self.classes = dataset.name, dataset.classes
        self.skip_bad_images = getattr(dataset, "skip_bad_images", False)
        chosen = np.asarray(self.indices, dtype="<i8")
        self.fingerprint = fingerprint([dataset.fingerprint], [chosen])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._dataset[self.indices[index]]


def spread(length: int, count: int) -> list[int]:
    """`count` indices of range(length), evenly spread: folders are sorted by class, the first ones are one class."""
    count = min(count, length)
    return [index * length // count for index in range(count)]


def fingerprint(texts: Iterable[str], arrays: Iterable[NDArray[np.generic]] = ()) -> str:
    """16 hex digits of the SHA-256 of these texts and arrays, each with its length."""
    digest = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogateescape")
        digest.update(len(data).to_bytes(8, "little") + data)
    for array in arrays:
        digest.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]
