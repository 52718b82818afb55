"""Batches: a pure function of (seed, epoch, batch), whatever the workers, the ranks or the start."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finet_deploy.data import Augmentation, TrainingBatches, evaluation_batches
from finet_deploy.data.dataset import BadImage, Batch
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.images import Preprocessing
from tests.data_sets import ListDataset, random_dataset

PLAIN = Preprocessing(8, 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
STRONG = Augmentation(image_size=8, crop_padding=2, flip=True, rotation=20)
SMALL = settings(max_examples=25, deadline=None)


def batches(count: int = 23, *, augmentation: Augmentation = STRONG, **options) -> TrainingBatches:
    settings = {"batch_size": 4, "seed": 0, **options}
    return TrainingBatches(random_dataset(count), augmentation, PLAIN, **settings)


def same(found: list[Batch], expected: list[Batch]) -> bool:
    return len(found) == len(expected) and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) and a.skipped == b.skipped
        for a, b in zip(found, expected)
    )


@given(st.integers(0, 5), st.integers(0, 3), st.integers(0, 5))
@SMALL
def test_an_epoch_begun_later_is_the_end_of_the_whole_one(seed, epoch, start):
    whole = list(batches(seed=seed).epoch(epoch))
    assert len(whole) == batches().num_batches == 5
    assert same(list(batches(seed=seed).epoch(epoch, start)), whole[start:])


@given(st.sampled_from([1, 2, 3, 4, 6, 12]), st.integers(0, 3))
@SMALL
def test_ranks_share_out_the_batches_of_one_process(world_size, epoch):
    whole = list(batches(40, batch_size=12).epoch(epoch))
    parts = [
        list(batches(40, batch_size=12, rank=rank, world_size=world_size).epoch(epoch))
        for rank in range(world_size)
    ]
    for expected, *shares in zip(whole, *parts):
        assert torch.equal(torch.cat([share.images for share in shares]), expected.images)
        assert torch.equal(torch.cat([share.labels for share in shares]), expected.labels)


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing_over_several_epochs_and_a_late_start(workers):
    alone, helped = batches(), batches(workers=workers)
    try:
        for epoch, start in ((0, 0), (1, 3), (4, 1), (2, 5)):
            assert same(list(helped.epoch(epoch, start)), list(alone.epoch(epoch, start)))
        half = helped.epoch(3)
        next(half)  # given up in the middle: its results must not turn up in the next
        assert same(list(helped.epoch(0)), list(alone.epoch(0)))
        with pytest.raises(RuntimeError, match="continued after the next one"):
            next(half)
    finally:
        helped.close()


def test_every_image_comes_at_most_once_an_epoch_and_in_another_order_in_the_next():
    plain = Augmentation(image_size=8)
    dataset = random_dataset(23)
    number = {image.sum().item(): index for index, (image, _) in enumerate(dataset.items)}
    orders = []
    for epoch in range(3):
        found = [
            number[round((image * 255).sum().item())]
            for batch in batches(augmentation=plain).epoch(epoch)
            for image in batch.images
        ]
        assert len(found) == len(set(found)) == 20
        orders.append(found)
    assert orders[0] != orders[1] != orders[2]
    other_seed = [batch.labels.tolist() for batch in batches(seed=1, augmentation=plain).epoch(0)]
    assert other_seed != [batch.labels.tolist() for batch in batches(augmentation=plain).epoch(0)]


def test_an_image_is_augmented_otherwise_in_each_epoch_and_by_each_seed():
    dataset = ListDataset([random_dataset(1).items[0]], 10)
    seen = [
        next(TrainingBatches(dataset, STRONG, PLAIN, batch_size=1, seed=seed).epoch(epoch)).images
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
    ]
    assert not torch.equal(seen[0], seen[1])
    assert not torch.equal(seen[0], seen[2])


def test_equal_images_of_one_batch_are_augmented_otherwise_and_whatever_the_size_of_the_batch():
    dataset = ListDataset([random_dataset(1).items[0]] * 12, 10)
    found = [
        torch.cat(
            [b.images for b in TrainingBatches(dataset, STRONG, PLAIN, batch_size=size, seed=0).epoch(0)]
        )
        for size in (12, 4)
    ]
    assert len({tuple(image.flatten().tolist()) for image in found[0]}) > 10
    assert torch.equal(found[0], found[1])


@pytest.mark.parametrize("workers", [0, 2])
def test_the_training_process_keeps_its_random_state(workers):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    reader = batches(workers=workers)
    assert len(list(reader.epoch(0))) == 5
    assert len(list(evaluation_batches(random_dataset(3), PLAIN, batch_size=2, workers=workers))) == 2
    reader.close()
    assert torch.equal(torch.rand(3), expected)


@given(st.integers(1, 40), st.integers(1, 9), st.integers(1, 5))
@SMALL
def test_evaluation_drops_nothing_and_ranks_take_disjoint_parts_in_order(count, batch_size, world_size):
    dataset = random_dataset(count)
    parts = [
        list(evaluation_batches(dataset, PLAIN, batch_size=batch_size, rank=rank, world_size=world_size))
        for rank in range(world_size)
    ]
    found = [batch for part in parts for batch in part]
    expected = torch.stack([image for image, _ in dataset.items]).float() / 255
    torch.testing.assert_close(torch.cat([batch.images for batch in found]), expected)
    assert torch.cat([batch.labels for batch in found]).tolist() == [label for _, label in dataset.items]
    assert all(len(batch.labels) <= batch_size for batch in found)
    sizes = [sum(len(batch.labels) for batch in part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("workers", [0, 2])
def test_an_uneven_last_evaluation_batch_is_the_same_with_workers(workers):
    found = list(evaluation_batches(random_dataset(7), PLAIN, batch_size=3, workers=workers))
    assert [len(batch.labels) for batch in found] == [3, 3, 1]


def test_impossible_batches_are_usage_errors():
    with pytest.raises(UsageError, match="batch size 24, but list has 23 images"):
        batches(batch_size=24)
    with pytest.raises(UsageError, match="batch of 4 cannot be divided between 3 processes"):
        batches(rank=0, world_size=3)
    with pytest.raises(UsageError, match="rank 2 of 2"):
        batches(rank=2, world_size=2)


def damaged(*bad: int, count: int = 8, skip: bool) -> ListDataset:
    dataset = random_dataset(count)
    for index in bad:
        dataset.items[index] = (BadImage("truncated", f"{index}.png"), dataset.items[index][1])
    dataset.skip_bad_images = skip
    return dataset


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_stops_training_and_evaluation_with_its_name(workers):
    dataset = damaged(3, skip=False)
    readers = [
        TrainingBatches(dataset, STRONG, PLAIN, batch_size=8, seed=0, workers=workers).epoch(0),
        evaluation_batches(dataset, PLAIN, batch_size=8, workers=workers),
    ]
    for reader in readers:
        with pytest.raises(BadImage, match=r"^cannot read image: truncated \[3.png\]; .*--skip-bad-images$"):
            list(reader)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_skipped_image_is_replaced_in_training_left_out_in_evaluation_and_named_in_both(workers):
    dataset = damaged(3, 7, skip=True)
    reader = TrainingBatches(
        dataset, Augmentation(image_size=8), PLAIN, batch_size=8, seed=0, workers=workers
    )
    (batch,) = reader.epoch(0)
    reader.close()
    assert sorted(batch.skipped) == ["3.png", "7.png"]
    assert sorted(batch.labels.tolist()) == [0, 0, 1, 2, 4, 4, 5, 6]  # 4 for 3, and round the end 0 for 7
    found = list(evaluation_batches(dataset, PLAIN, batch_size=4, workers=workers))
    assert [name for batch in found for name in batch.skipped] == ["3.png", "7.png"]
    assert torch.cat([batch.labels for batch in found]).tolist() == [0, 1, 2, 4, 5, 6]


def test_when_no_image_can_be_read_training_stops_and_evaluation_has_empty_batches():
    dataset = damaged(0, 1, count=2, skip=True)
    with pytest.raises(FinetDeployError, match="no image of list can be read"):
        list(TrainingBatches(dataset, STRONG, PLAIN, batch_size=2, seed=0).epoch(0))
    (batch,) = evaluation_batches(dataset, PLAIN, batch_size=2)
    assert (batch.images.shape, batch.labels.dtype, len(batch.skipped)) == ((0, 3, 8, 8), torch.int64, 2)
