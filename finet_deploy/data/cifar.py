"""CIFAR-10 and CIFAR-100 in the published python version (Krizhevsky 2009).

torchvision fetches and unpacks the archive, and checks its MD5. The batch files are read here: torchvision's own
reader takes the published files only, by their MD5, and unpickles them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finet_deploy.data.dataset import ArrayDataset, check_labels
from finet_deploy.data.pickles import read_plain_pickle
from finet_deploy.errors import FinetDeployError

__all__ = ["open_cifar"]

PIXELS = 3 * 32 * 32
MAX_BATCH_BYTES = 1 << 28  # the largest published one has 155 MB


@dataclass(frozen=True)
class _Kind:
    folder: str
    archive: str
    train: tuple[str, ...]
    val: tuple[str, ...]
    meta: str
    names: str
    labels: str
    classes: int

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, *self.val, self.meta)


_KINDS = {
    "cifar10": _Kind(
        "cifar-10-batches-py",
        "cifar-10-python.tar.gz",
        tuple(f"data_batch_{number}" for number in range(1, 6)),
        ("test_batch",),
        "batches.meta",
        "label_names",
        "labels",
        10,
    ),
    "cifar100": _Kind(
        "cifar-100-python",
        "cifar-100-python.tar.gz",
        ("train",),
        ("test",),
        "meta",
        "fine_label_names",
        "fine_labels",
        100,
    ),
}


def open_cifar(name: str, split: str, folder: Path, *, download: bool = False) -> ArrayDataset:
    """`train` (five batches, or one file) or `val` (the published test images), each (3, 32, 32).

    folder: holds `cifar-10-batches-py` or `cifar-100-python`. download: fetch and unpack them when a file is missing
    or cannot be read. Raises FinetDeployError, naming the file and the remedy.
    """
    kind = _KINDS[name]
    try:
        return _open(name, kind, split, folder)
    except FinetDeployError:
        if not download:
            raise
    _download(name, kind, folder)
    return _open(name, kind, split, folder)


def _open(name: str, kind: _Kind, split: str, folder: Path) -> ArrayDataset:
    root = folder / kind.folder
    missing = [file for file in kind.files if not (root / file).is_file()]
    if missing:
        raise _absent(name, kind, folder, missing)
    classes = _class_names(kind, root)
    parts = [_read_batch(kind, root / file) for file in (kind.train if split == "train" else kind.val)]
    images = np.concatenate([pixels for pixels, _ in parts]).reshape(-1, 3, 32, 32)
    return ArrayDataset(name, images, np.concatenate([labels for _, labels in parts]), classes)


def _read_batch(kind: _Kind, path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """((N, 3072) uint8, planes red, green, blue; (N,) labels)."""
    data = _read(path)
    images, labels = data.get("data"), data.get(kind.labels)
    if not isinstance(images, np.ndarray) or images.ndim != 2 or images.shape[1] != PIXELS or not len(images):
        raise _foreign(path, f"no images of 3 x 32 x 32 under {'data'!r}")
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise _foreign(path, f"no list of labels under {kind.labels!r}")
    if len(labels) != len(images):
        raise _foreign(path, f"{len(images)} images, but {len(labels)} labels")
    if any(abs(label) > 1 << 31 for label in labels):
        raise _foreign(path, "labels are out of range")
    known = np.array(labels, dtype=np.int64)
    check_labels(known, kind.classes, str(path))
    return images, known


def _class_names(kind: _Kind, root: Path) -> list[str]:
    path = root / kind.meta
    names = _read(path).get(kind.names)
    if isinstance(names, list) and len(names) == kind.classes and all(type(name) is str for name in names):
        return names
    raise _foreign(path, f"no {kind.classes} names under {kind.names!r}")


def _read(path: Path) -> Mapping[str, Any]:
    data = read_plain_pickle(path, MAX_BATCH_BYTES)
    if not isinstance(data, dict):
        raise _foreign(path, f"it holds a {type(data).__name__}")
    return data


def _foreign(path: Path, found: str) -> FinetDeployError:
    return FinetDeployError(
        f"not a CIFAR batch file: {found}", where=str(path), do="remove it and give --download"
    )


def _absent(name: str, kind: _Kind, folder: Path, missing: list[str]) -> FinetDeployError:
    root, archive = folder / kind.folder, folder / kind.archive
    if archive.is_file():
        if _md5(archive) == _published(name).tgz_md5:
            found = "the archive is here, but was not unpacked"
        else:
            found = "the archive is not the published one: its download was interrupted, or it is damaged"
        return FinetDeployError(
            f"{found} ({archive.stat().st_size:,} bytes)",
            where=str(archive),
            do="give --download, which keeps a sound archive and replaces another",
        )
    if root.is_dir():
        return FinetDeployError(
            f"files of {name} are missing: {', '.join(missing)}", where=str(root), do="give --download"
        )
    return FinetDeployError(
        f"no {kind.folder}/ here",
        where=str(folder),
        do=f"give --download, or unpack {kind.archive} (python version) there",
    )


def _published(name: str) -> Any:
    from torchvision import datasets

    return datasets.CIFAR10 if name == "cifar10" else datasets.CIFAR100


def _md5(path: Path) -> str:
    digest = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _download(name: str, kind: _Kind, folder: Path) -> None:
    """Fetch and unpack with torchvision. An archive that did not become whole is removed, on Ctrl-C too."""
    from torchvision.datasets import utils

    archive, source = folder / kind.archive, _published(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        utils.download_and_extract_archive(source.url, folder, filename=kind.archive, md5=source.tgz_md5)
    except (OSError, RuntimeError, EOFError, ValueError) as error:
        _remove_unless_whole(name, archive)
        raise FinetDeployError(
            f"the download failed or was interrupted: {error}",
            where=str(archive),
            do=f"check the connection and the space left, or put {kind.archive} there by hand",
        ) from error
    except BaseException:
        _remove_unless_whole(name, archive)
        raise


def _remove_unless_whole(name: str, archive: Path) -> None:
    if archive.is_file() and _md5(archive) != _published(name).tgz_md5:
        archive.unlink()
