"""Batches that are a pure function of (seed, epoch, batch number): to resume, nothing else has to be known.

Neither the number of worker processes nor that of ranks, nor where an epoch is begun, changes a sample or what
augmentation does to it, and the training process's own random state is left alone.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from finet_deploy.data.augment import Augmentation, derived_seed, private_rng
from finet_deploy.data.dataset import BadImage, Batch, ImageDataset
from finet_deploy.data.workers import Fleet, run_once
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.images import Preprocessing

__all__ = ["TrainingBatches", "check_ranks", "map_style_evaluation"]

# What a number is drawn for, so that no two uses of one seed share a stream.
ORDER, AUGMENT = 1, 2


class TrainingBatches:
    """Shuffled, augmented batches of a data set.

    batch_size: of all ranks together; a rank gets its contiguous slice of each. num_batches: of an epoch; what is
    left over at its end is not used (other images each time). workers: processes that read ahead; 0 reads here.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        augmentation: Augmentation,
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        seed: int,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check_ranks(batch_size, rank, world_size)
        self.num_batches = len(dataset) // batch_size
        if self.num_batches == 0:
            raise UsageError(
                f"batch size {batch_size}, but {dataset.name} has {len(dataset)} images to train on",
                do="give a smaller --batch-size",
            )
        size = batch_size // world_size
        self._read = _TrainingReader(
            dataset, augmentation, preprocessing, seed, batch_size, range(rank * size, (rank + 1) * size)
        )
        self._fleet = Fleet(self._read, workers) if workers else None

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch (counted from 0) from number `start` on.

        With workers, beginning an epoch ends the one before. Raises FinetDeployError, naming the file, for an
        unreadable image.
        """
        jobs = [(epoch, number) for number in range(start, self.num_batches)]
        yield from self._fleet.run(jobs) if self._fleet else map(self._read, jobs)

    def close(self) -> None:
        """End the worker processes; they also end with this object and with the process."""
        if self._fleet:
            self._fleet.close()


class _TrainingReader:
    """(epoch, batch number) -> that batch, or the places `share` of it. What a worker gets a copy of."""

    def __init__(
        self,
        dataset: ImageDataset,
        augmentation: Augmentation,
        preprocessing: Preprocessing,
        seed: int,
        batch_size: int,
        share: range,
    ) -> None:
        self._dataset, self._augmentation, self._preprocessing = dataset, augmentation, preprocessing
        self._seed, self._batch_size, self._share = seed, batch_size, share
        self._order: tuple[int, Tensor] | None = None

    def __call__(self, job: tuple[int, int]) -> Batch:
        epoch, number = job
        first = number * self._batch_size
        places = slice(first + self._share.start, first + self._share.stop)
        images, labels, skipped = [], [], []
        with private_rng() as generator:
            for index in self._permutation(epoch)[places].tolist():
                image, label, unreadable = read_or_next(self._dataset, index)
                generator.manual_seed(derived_seed(self._seed, AUGMENT, epoch, index))
                images.append(self._augmentation(image))
                labels.append(label)
                skipped += unreadable
        pixels = self._preprocessing.standardize(torch.stack(images))
        return Batch(pixels, torch.tensor(labels), tuple(skipped))

    def _permutation(self, epoch: int) -> Tensor:
        if self._order is None or self._order[0] != epoch:
            generator = torch.Generator().manual_seed(derived_seed(self._seed, ORDER, epoch))
            self._order = epoch, torch.randperm(len(self._dataset), generator=generator)
        return self._order[1]


def read_or_next(dataset: ImageDataset, index: int) -> tuple[Tensor, int, list[str]]:
    """The image at `index` and its label; if it may be skipped and is unreadable, the next readable one.

    Also the names of the unreadable ones. Raises BadImage when none may be skipped, FinetDeployError when none
    is readable.
    """
    skipped: list[str] = []
    for step in range(len(dataset)):
        try:
            return (*dataset[(index + step) % len(dataset)], skipped)
        except BadImage as error:
            if not getattr(dataset, "skip_bad_images", False):
                raise
            skipped.append(error.name)
    raise FinetDeployError(f"no image of {dataset.name} can be read", where=skipped[0], do="check the data")


def check_ranks(batch_size: int, rank: int, world_size: int) -> None:
    """UsageError when a batch cannot be divided between the ranks."""
    if batch_size < 1 or not 0 <= rank < world_size:
        raise UsageError(
            f"batch size {batch_size}, rank {rank} of {world_size}", do="give 1 or more images a batch"
        )
    if batch_size % world_size:
        raise UsageError(
            f"a batch of {batch_size} cannot be divided between {world_size} processes",
            do=f"give a batch size that is a multiple of {world_size}",
        )


class _EvaluationReader:
    """Reads the images first..last-1, preprocessed, without the unreadable ones if those may be skipped."""

    def __init__(self, dataset: ImageDataset, preprocessing: Preprocessing) -> None:
        self._dataset, self._preprocessing = dataset, preprocessing

    def __call__(self, job: tuple[int, int]) -> tuple[list[int], Batch]:
        indices, images, labels, skipped = [], [], [], []
        for index in range(*job):
            try:
                image, label = self._dataset[index]
            except BadImage as error:
                if not getattr(self._dataset, "skip_bad_images", False):
                    raise
                skipped.append(error.name)
                continue
            indices.append(index)
            images.append(self._preprocessing(image))
            labels.append(label)
        crop = self._preprocessing.crop
        pixels = torch.stack(images) if images else torch.empty(0, 3, crop, crop)
        return indices, Batch(pixels, torch.tensor(labels, dtype=torch.int64), tuple(skipped))


def map_style_evaluation(
    dataset: ImageDataset,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[tuple[list[int], Batch]]:
    """All images in order, with their indices; each rank takes its contiguous part, the parts differ by one at most."""
    check_ranks(batch_size * world_size, rank, world_size)
    first, last = (len(dataset) * part // world_size for part in (rank, rank + 1))
    jobs = [(begin, min(begin + batch_size, last)) for begin in range(first, last, batch_size)]
    yield from run_once(_EvaluationReader(dataset, preprocessing), jobs, workers)
