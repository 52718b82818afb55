"""Training batches, and batches to evaluate on, from tar shards.

An epoch's order is a pure function of (seed, epoch, rank, number of ranks): shards are shuffled and dealt to the
ranks, and each rank's samples are shuffled within a buffer. It is worked out from the index before anything is read,
so it does not depend on the number of workers, and a resumed epoch opens only the shards that it still needs.

Each worker goes through all shards of its rank, and decodes the images of its own batches alone: decoding is the work
(about 6 ms an image of ImageNet against 0.05 ms for passing over it), and the file is in memory for the others.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finet_deploy.data.augment import Augmentation, derived_seed, private_rng
from finet_deploy.data.batches import AUGMENT, ORDER, check_ranks
from finet_deploy.data.dataset import BadImage, Batch
from finet_deploy.data.shard_files import ShardSet, webdataset
from finet_deploy.data.shard_reading import Sample, read_shard
from finet_deploy.data.workers import stream
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.images import Preprocessing

__all__ = ["ShardBatches", "buffered_order", "shard_evaluation"]

BUFFER = 5000  # samples; encoded, so about 500 MB of ImageNet's, divided between a rank's workers
BUFFERED = 3  # as ORDER and AUGMENT: what a number is drawn for


class ShardBatches:
    """Shuffled, augmented batches from shards; the interface of `TrainingBatches`.

    Every rank reads the same number of shards, `len(entries) // world_size`; the others are left out of an epoch,
    others in each. num_batches is what the rank with the fewest samples can fill in the worst of all epochs, so that
    all ranks have the same number in every epoch. With shards of equal size and a number of shards that the
    ranks divide, nothing but the last incomplete batch is left out.
    """

    def __init__(
        self,
        dataset: ShardSet,
        augmentation: Augmentation,
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        seed: int,
        workers: int = 0,
        rank: int = 0,
        world_size: int = 1,
        buffer: int = BUFFER,
    ) -> None:
        check_ranks(batch_size, rank, world_size)
        webdataset()  # loaded once, not by each worker
        self._shards_per_rank = len(dataset.entries) // world_size
        if self._shards_per_rank == 0:
            raise UsageError(
                f"{len(dataset.entries)} shards for {world_size} processes: each needs at least one",
                where=str(dataset.folder),
                do="write more, smaller shards, or start fewer processes",
            )
        self._size = batch_size // world_size
        fewest = sorted(entry.samples for entry in dataset.entries)[: self._shards_per_rank]
        self.num_batches = sum(fewest) // self._size
        if self.num_batches == 0:
            raise UsageError(
                f"batch size {batch_size}, but a process may get no more than {sum(fewest)} samples",
                where=str(dataset.folder),
                do="give a smaller --batch-size",
            )
        self._dataset, self._augmentation, self._preprocessing = dataset, augmentation, preprocessing
        self._seed, self._workers, self._buffer = seed, workers, buffer
        self._rank, self._world_size = rank, world_size

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of an epoch (counted from 0) from number `start` on.

        Raises FinetDeployError, naming the file, for a damaged shard or an unreadable image.
        """
        yield from stream(functools.partial(self._share, epoch, start), self._workers)

    def close(self) -> None:
        """Nothing to do: the worker processes end with the epoch."""

    def _share(self, epoch: int, start: int, worker: int, workers: int) -> Iterator[Batch]:
        """Batches start + worker, start + worker + workers, ... of the epoch."""
        shards = self._shards(epoch)
        counts = [self._dataset.entries[shard].samples for shard in shards]
        seed = derived_seed(self._seed, BUFFERED, epoch, self._rank)
        place = buffered_order(sum(counts), self._buffer, seed)
        batch = place // self._size
        mine = (batch >= start) & (batch < self.num_batches) & ((batch - start) % workers == worker)
        waiting: dict[int, list[tuple[int, Sample]]] = defaultdict(list)
        due, begin = start + worker, 0
        for shard, count in zip(shards, counts):
            needed = mine[begin : begin + count]
            if needed.any():
                for step, sample in enumerate(read_shard(self._dataset, shard)):
                    if needed[step]:
                        at = int(place[begin + step])
                        waiting[at // self._size].append((at, sample))
                    while len(waiting[due]) == self._size:
                        yield self._decode(epoch, [sample for _, sample in sorted(waiting.pop(due))])
                        due += workers
            begin += count

    def _shards(self, epoch: int) -> list[int]:
        """This rank's shards in an epoch."""
        generator = torch.Generator().manual_seed(derived_seed(self._seed, ORDER, epoch))
        order = torch.randperm(len(self._dataset.entries), generator=generator).tolist()
        return order[: self._shards_per_rank * self._world_size][self._rank :: self._world_size]

    def _decode(self, epoch: int, samples: list[Sample]) -> Batch:
        """An unreadable image, if it may be skipped, is replaced by the next readable one of the batch."""
        images, labels, skipped = [], [], []
        decoded = [self._image(sample) for sample in samples]
        with private_rng() as generator:
            for index, sample in enumerate(samples):
                image, label = _next_readable(samples, decoded, index)
                if decoded[index] is None:
                    skipped.append(sample.name)
                generator.manual_seed(derived_seed(self._seed, AUGMENT, epoch, sample.number))
                images.append(self._augmentation(image))
                labels.append(label)
        pixels = self._preprocessing.standardize(torch.stack(images))
        return Batch(pixels, torch.tensor(labels), tuple(skipped))

    def _image(self, sample: Sample) -> Tensor | None:
        try:
            return sample.image()
        except BadImage:
            if not self._dataset.skip_bad_images:
                raise
            return None


def _next_readable(samples: list[Sample], decoded: list[Tensor | None], index: int) -> tuple[Tensor, int]:
    for step in range(len(samples)):
        other = (index + step) % len(samples)
        image = decoded[other]
        if image is not None:
            return image, samples[other].label
    raise FinetDeployError(
        "no image of a whole batch can be read", where=samples[index].name, do="check the data"
    )


def buffered_order(length: int, buffer: int, seed: int) -> NDArray[np.int64]:
    """place[i]: where sample i of a stream comes out of a shuffling buffer of `buffer` samples.

    As WebDataset's `shuffle`: the buffer is filled; then each arriving sample takes the place of one drawn at random,
    which comes out; at the end the rest comes out in random order.
    """
    generator = torch.Generator().manual_seed(seed)
    buffer = max(1, min(buffer, length))
    held, out = list(range(buffer)), []
    slots = torch.randint(0, buffer, (length - buffer,), generator=generator).tolist()
    for arriving, slot in enumerate(slots, start=buffer):
        out.append(held[slot])
        held[slot] = arriving
    out += [held[slot] for slot in torch.randperm(len(held), generator=generator).tolist()]
    place = np.empty(length, dtype=np.int64)
    place[out] = np.arange(length)
    return place


def shard_evaluation(
    dataset: ShardSet,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[tuple[list[int], Batch]]:
    """All samples in order, with their numbers; each rank takes its own run of whole shards, perhaps none."""
    check_ranks(batch_size * world_size, rank, world_size)
    webdataset()
    shards = [len(dataset.entries) * part // world_size for part in (rank, rank + 1)]
    share = functools.partial(_evaluation_share, dataset, preprocessing, batch_size, range(*shards))
    yield from stream(share, workers)


def _evaluation_share(
    dataset: ShardSet,
    preprocessing: Preprocessing,
    batch_size: int,
    shards: range,
    worker: int,
    workers: int,
) -> Iterator[tuple[list[int], Batch]]:
    chosen = None if dataset.chosen is None else set(dataset.chosen)
    samples: list[Sample] = []
    seen = 0
    for shard in shards:
        for sample in read_shard(dataset, shard):
            if chosen is not None and sample.number not in chosen:
                continue
            if seen // batch_size % workers == worker:
                samples.append(sample)
            seen += 1
            if len(samples) == batch_size:
                yield _evaluation_batch(dataset, preprocessing, samples)
                samples = []
    if samples:
        yield _evaluation_batch(dataset, preprocessing, samples)


def _evaluation_batch(
    dataset: ShardSet, preprocessing: Preprocessing, samples: list[Sample]
) -> tuple[list[int], Batch]:
    numbers, images, labels, skipped = [], [], [], []
    for sample in samples:
        try:
            image = sample.image()
        except BadImage as error:
            if not dataset.skip_bad_images:
                raise
            skipped.append(error.name)
            continue
        numbers.append(sample.number)
        images.append(preprocessing(image))
        labels.append(sample.label)
    crop = preprocessing.crop
    pixels = torch.stack(images) if images else torch.empty(0, 3, crop, crop)
    return numbers, Batch(pixels, torch.tensor(labels, dtype=torch.int64), tuple(skipped))
