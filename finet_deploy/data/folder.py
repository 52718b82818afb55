"""Image folders as torchvision's `ImageFolder` has them: DIR/train/<class>/*, DIR/val/<class>/*."""

from __future__ import annotations

import functools
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor
from torchvision.datasets.folder import IMG_EXTENSIONS, find_classes, make_dataset

from finet_deploy.data.dataset import BadImage, fingerprint
from finet_deploy.data.pictures import read_picture
from finet_deploy.errors import FinetDeployError
from finet_deploy.files import explain_os_error

__all__ = ["FolderDataset", "open_folder"]

LAYOUT = "DIR/train/<class>/<image> and DIR/val/<class>/<image>"
LISTED = 5


class FolderDataset:
    """Image files below one split's folder, in the order of classes and names."""

    def __init__(
        self,
        name: str,
        root: Path,
        samples: Sequence[tuple[str, int]],
        classes: Sequence[str],
        *,
        skip_bad_images: bool = False,
    ) -> None:
        self.name, self.classes, self.skip_bad_images = name, tuple(classes), skip_bad_images
        self._root = str(root)
        # Relative to the root: 1.3 million absolute paths would take twice the memory.
        self._paths = [os.path.relpath(path, root) for path, _ in samples]
        self._labels = np.array([label for _, label in samples], dtype=np.int64)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Over class names, relative paths, labels and file sizes, not over the pixels: ImageNet has 150 GB."""
        sizes = [_size(self._file(index)) for index in range(len(self))]
        texts = [self.name, *self.classes, *self._paths]
        return fingerprint(texts, [self._labels, np.array(sizes, dtype="<i8")])

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path = self._file(index)
        return read_picture(path, str(path)), int(self._labels[index])

    def encoded(self, index: int) -> tuple[bytes, str, int]:
        """(the file as it is, its suffix, the label). Raises BadImage."""
        path = self._file(index)
        try:
            return path.read_bytes(), path.suffix.lower().removeprefix("."), int(self._labels[index])
        except OSError as error:
            raise BadImage(error.strerror or str(error), str(path)) from error

    def _file(self, index: int) -> Path:
        return Path(self._root, self._paths[index])


def open_folder(
    name: str, split: str, folder: Path, *, num_classes: int | None = None, skip_bad_images: bool = False
) -> FolderDataset:
    """The images of `folder/<split>`. Labels are the ranks of the class names of `train`, in both splits.

    A folder with `val` alone can be evaluated on; its own class names count then. num_classes: how many there have to
    be. Raises FinetDeployError for a folder without this layout, a class without images, and splits whose classes
    differ.
    """
    if not folder.is_dir():
        found = "this is a file" if folder.exists() else "no such folder of data"
        raise FinetDeployError(found, where=str(folder), do=f"give --data DIR with {LAYOUT}")
    root = folder / split
    if not root.is_dir():
        raise FinetDeployError(
            f"no folder {split}/ here; found {_listing(folder)}", where=str(folder), do=f"expected {LAYOUT}"
        )
    try:
        classes = _classes(root)
        if split == "val" and (folder / "train").is_dir():
            _require_same(_classes(folder / "train"), classes, root)
        samples = make_dataset(root, _indices(classes), extensions=IMG_EXTENSIONS, allow_empty=True)
    except OSError as error:
        raise explain_os_error(error, "read the data set", Path(error.filename or root)) from error
    _require_no_empty_class(samples, classes, root)
    if num_classes is not None and len(classes) != num_classes:
        raise FinetDeployError(
            f"{name} has {num_classes} classes, this folder {len(classes)}",
            where=str(root),
            do="use --dataset folder for other image folders",
        )
    return FolderDataset(name, root, samples, classes, skip_bad_images=skip_bad_images)


def _indices(classes: Iterable[str]) -> dict[str, int]:
    return {name: label for label, name in enumerate(classes)}


def _classes(root: Path) -> list[str]:
    try:
        return find_classes(root)[0]
    except FileNotFoundError as error:  # what torchvision raises when there are none
        raise FinetDeployError(
            f"no class folders here; found {_listing(root)}", where=str(root), do=f"expected {LAYOUT}"
        ) from error


def _require_same(train: list[str], val: list[str], root: Path) -> None:
    for found, wanted, problem in (
        (val, train, "are not in train, so their labels would be out of range"),
        (train, val, "of train are not here"),
    ):
        if other := sorted(set(found) - set(wanted)):
            raise FinetDeployError(
                f"{len(other)} classes {problem}: {_listed(other)}",
                where=str(root),
                do="give train/ and val/ the same class folders",
            )


def _require_no_empty_class(samples: list[tuple[str, int]], classes: list[str], root: Path) -> None:
    count = Counter(label for _, label in samples)
    empty = [name for label, name in enumerate(classes) if not count[label]]
    if not empty:
        return
    inside = _listing(root / empty[0])
    raise FinetDeployError(
        f"{len(empty)} of {len(classes)} classes have no images: {_listed(empty)} "
        f"({empty[0]} holds {inside}; images are {', '.join(IMG_EXTENSIONS)})",
        where=str(root),
        do="add images, or remove the class folder from train/ and val/",
    )


def _listing(folder: Path) -> str:
    """What a person would see there: `nothing`, or the first names."""
    try:
        entries = sorted(entry.name + ("/" if entry.is_dir() else "") for entry in os.scandir(folder))
    except OSError as error:
        return f"it unreadable ({error.strerror})"
    return _listed(entries) if entries else "nothing"


def _listed(names: list[str]) -> str:
    rest = len(names) - LISTED
    return ", ".join(names[:LISTED]) + (f" and {rest} more" if rest > 0 else "")


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1  # a missing file is named where it is read
