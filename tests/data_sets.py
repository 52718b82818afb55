"""Small data sets in the formats of the real ones: CIFAR's python version, image folders, tar shards."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from finet_deploy.data.dataset import ArrayDataset

__all__ = ["ListDataset", "class_images", "make_cifar", "make_image_folder", "make_shards"]


def class_images(labels: np.ndarray, classes: int, size: int, seed: int = 0) -> np.ndarray:
    """(N, 3, size, size) uint8 that a network can tell apart: a hue per class, a gradient, and noise."""
    random = np.random.RandomState(seed)
    hue = np.random.RandomState(12).randint(40, 216, (classes, 3, 1, 1))
    ramp = np.linspace(-24, 24, size)[None, None, None, :]
    noise = random.randint(-16, 17, (len(labels), 3, size, size))
    return np.clip(hue[labels] + ramp + noise, 0, 255).astype(np.uint8)


def make_cifar(folder: Path, *, classes: int = 10, train: int = 50, test: int = 20, seed: int = 0) -> Path:
    """A CIFAR-10 or CIFAR-100 set in the published files' form; labels go round. Returns `folder`."""
    root = folder / ("cifar-10-batches-py" if classes == 10 else "cifar-100-python")
    root.mkdir(parents=True)
    key = b"labels" if classes == 10 else b"fine_labels"
    files = [f"data_batch_{i}" for i in range(1, 6)] if classes == 10 else ["train"]
    parts = {
        **dict(zip(files, np.array_split(np.arange(train), len(files)))),
        ("test_batch" if classes == 10 else "test"): np.arange(test),
    }
    for number, (file, indices) in enumerate(parts.items()):
        labels = indices % classes
        pixels = class_images(labels, classes, 32, seed + number).reshape(len(labels), -1)
        content = {
            b"batch_label": f"{file} of these".encode(),
            key: [int(label) for label in labels],
            b"data": pixels,
            b"filenames": [f"image_{index}.png".encode() for index in indices],
        }
        write_pickle(root / file, content)
    names = [f"class_{label}".encode() for label in range(classes)]
    if classes == 10:
        write_pickle(root / "batches.meta", {b"label_names": names, b"num_vis": 3072})
    else:
        coarse = [f"coarse_{label}".encode() for label in range(20)]
        write_pickle(root / "meta", {b"fine_label_names": names, b"coarse_label_names": coarse})
    return folder


def write_pickle(path: Path, content: Any) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


def make_image_folder(
    folder: Path, *, classes: int = 3, train: int = 4, val: int = 2, size: int = 40, seed: int = 0
) -> Path:
    """`folder/train/class_000/0.png` and so on, `train` and `val` images per class, `size` x `size + 8` px."""
    for number, (split, count) in enumerate((("train", train), ("val", val))):
        for label in range(classes):
            own = folder / split / f"class_{label:03d}"
            own.mkdir(parents=True)
            images = class_images(np.full(count, label), classes, size + 8, seed + 1000 * number + label)
            for index, image in enumerate(images):
                Image.fromarray(image[:, :size].transpose(1, 2, 0)).save(own / f"{index}.png")
    return folder


def make_shards(
    folder: Path,
    *,
    classes: int = 3,
    train: int = 24,
    val: int = 9,
    size: int = 16,
    per_shard: int = 4,
    seed: int = 0,
) -> Path:
    """Tar shards with their index; labels go round. Returns `folder`."""
    from finet_deploy.data import write_shards

    for number, (split, count) in enumerate((("train", train), ("val", val))):
        labels = np.arange(count) % classes
        names = [f"class_{label:03d}" for label in range(classes)]
        images = class_images(labels, classes, size, seed + number)
        write_shards(ArrayDataset("made", images, labels, names), folder, split, samples_per_shard=per_shard)
    return folder


class ListDataset:
    """Images and labels given one by one; an exception in place of an image is raised where it is read."""

    def __init__(
        self, items: list[tuple[Tensor | Exception, int]], classes: int, *, skip_bad_images: bool = False
    ) -> None:
        self.items, self.skip_bad_images = items, skip_bad_images
        self.name, self.fingerprint = "list", "0" * 16
        self.classes = tuple(map(str, range(classes)))

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image, label = self.items[index]
        if isinstance(image, Exception):
            raise image
        return image, label


def random_dataset(count: int, classes: int = 10, size: int = 8, seed: int = 0) -> ListDataset:
    """`count` images of noise, each of which can be told from the others."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 3, size, size), generator=generator, dtype=torch.uint8)
    return ListDataset([(image, index % classes) for index, image in enumerate(images)], classes)
