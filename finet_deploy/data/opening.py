"""Data sets by name, and their batches, whatever kind they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from finet_deploy.data.augment import Augmentation
from finet_deploy.data.batches import TrainingBatches, map_style_evaluation
from finet_deploy.data.dataset import Batch, ImageDataset, Selection, spread
from finet_deploy.data.names import dataset_info
from finet_deploy.data.shard_batches import ShardBatches, shard_evaluation
from finet_deploy.data.shard_files import ShardSet, open_shards
from finet_deploy.errors import UsageError
from finet_deploy.images import Preprocessing

__all__ = ["evaluation_batches", "indexed_batches", "limited", "open_dataset", "training_batches"]


def open_dataset(
    name: str,
    split: Literal["train", "val"],
    *,
    folder: Path | str | None = None,
    download: bool = False,
    skip_bad_images: bool = False,
) -> ImageDataset:
    """The data set `name` (see `DATASETS`). folder: where it lies; `digits` needs none.

    download: fetch what is missing, where torchvision can. skip_bad_images: leave unreadable ones out, and say so in
    each batch, instead of stopping. Raises UsageError for a wrong call, FinetDeployError, naming what was found and
    what was expected, for data that is missing, damaged or laid out otherwise.
    """
    info = dataset_info(name)
    if split not in ("train", "val"):
        raise UsageError(f"unknown split {split!r}", do="use train or val")
    if download and not info.downloads:
        raise UsageError(
            f"{name} cannot be downloaded", do="leave --download out, or choose cifar10 or cifar100"
        )
    if info.in_package:
        if folder is not None:
            raise UsageError(f"{name} is in the package and needs no folder", do="leave --data out")
        from finet_deploy.data.digits import open_digits

        return open_digits(split)
    if folder is None:
        raise UsageError(f"{name} needs a folder: {info.description}", do="give --data DIR")
    folder = Path(folder)
    if name in ("cifar10", "cifar100"):
        from finet_deploy.data.cifar import open_cifar

        return open_cifar(name, split, folder, download=download)
    if name == "shards":
        return open_shards(split, folder, skip_bad_images=skip_bad_images)
    from finet_deploy.data.folder import open_folder

    return open_folder(name, split, folder, num_classes=info.num_classes, skip_bad_images=skip_bad_images)


def training_batches(
    dataset: ImageDataset,
    augmentation: Augmentation,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    seed: int,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> TrainingBatches | ShardBatches:
    """`TrainingBatches`, or `ShardBatches` for tar shards: both have num_batches, epoch(epoch, start) and close()."""
    kind = ShardBatches if isinstance(dataset, ShardSet) else TrainingBatches
    return kind(
        dataset,  # type: ignore[arg-type]
        augmentation,
        preprocessing,
        batch_size=batch_size,
        seed=seed,
        workers=workers,
        rank=rank,
        world_size=world_size,
    )


def evaluation_batches(
    dataset: ImageDataset,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Batch]:
    """All images in order, resized and cropped, in batches of `batch_size` (the last may be smaller).

    Nothing is dropped; ranks take disjoint parts, which may differ in length.
    """
    for _, batch in indexed_batches(
        dataset, preprocessing, batch_size=batch_size, workers=workers, rank=rank, world_size=world_size
    ):
        yield batch


def indexed_batches(
    dataset: ImageDataset,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[tuple[list[int], Batch]]:
    """`evaluation_batches`, each with its images' indices in the data set."""
    options = {"batch_size": batch_size, "workers": workers, "rank": rank, "world_size": world_size}
    if isinstance(dataset, ShardSet):
        return shard_evaluation(dataset, preprocessing, **options)
    return map_style_evaluation(dataset, preprocessing, **options)


def limited(dataset: ImageDataset, count: int) -> ImageDataset:
    """At most `count` images of the data set, evenly spread over it."""
    if count < 1:
        raise UsageError(f"a limit of {count} images", do="give 1 or more")
    if isinstance(dataset, ShardSet):
        return dataset.limited(count)
    return Selection(dataset, spread(len(dataset), count))
