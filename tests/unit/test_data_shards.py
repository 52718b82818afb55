"""Tar shards: an order that the seed alone decides, the same number of batches for every rank, nothing trusted."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finet_deploy.data import (
    Augmentation,
    ShardBatches,
    TrainingBatches,
    evaluation_batches,
    open_dataset,
    training_batches,
    write_shards,
)
from finet_deploy.data.dataset import BadImage, Batch
from finet_deploy.data.opening import limited
from finet_deploy.data.shard_batches import buffered_order
from finet_deploy.data.shard_files import ShardSet
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.files import sha256_file
from finet_deploy.images import Preprocessing
from tests.data_sets import make_image_folder, make_shards, random_dataset

PLAIN = Preprocessing(16, 16, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
STRONG = Augmentation(image_size=16, crop_padding=2, flip=True)
AS_IT_IS = Augmentation(image_size=16)


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """24 images to train on in 6 shards, 9 to evaluate on in 3. Not to be changed: copy it."""
    return make_shards(tmp_path_factory.mktemp("shards"))


def batches(folder: Path, *, augmentation: Augmentation = STRONG, **options) -> ShardBatches:
    return ShardBatches(
        open_dataset("shards", "train", folder=folder),
        augmentation,
        PLAIN,
        **{"batch_size": 6, "seed": 0, "buffer": 5, **options},
    )


def same(found: list[Batch], expected: list[Batch]) -> bool:
    return len(found) == len(expected) and all(
        torch.equal(a.images, b.images) and torch.equal(a.labels, b.labels) for a, b in zip(found, expected)
    )


def identities(found: list[Batch]) -> list[float]:
    """One number an image: the made ones all differ."""
    return [round(image.double().sum().item(), 3) for batch in found for image in batch.images]


@given(st.integers(1, 300), st.integers(1, 400), st.integers(0, 5))
def test_the_buffer_lets_each_sample_out_once_and_none_before_it_came_in(length, buffer, seed):
    place = buffered_order(length, buffer, seed)
    assert sorted(place.tolist()) == list(range(length))
    # At most `buffer` samples are held, the arriving one among them: sample i cannot leave before place i - buffer.
    assert all(at >= sample - buffer for sample, at in enumerate(place.tolist()))


def test_a_buffer_shuffles_and_each_seed_otherwise():
    orders = {tuple(buffered_order(100, 20, seed).tolist()) for seed in range(10)}
    assert len(orders) == 10
    assert tuple(range(100)) not in orders


@given(st.integers(0, 3), st.integers(0, 2), st.integers(0, 4))
@settings(max_examples=15, deadline=None)
def test_an_epoch_begun_later_is_the_end_of_the_whole_one(shards, seed, epoch, start):
    whole = list(batches(shards, seed=seed).epoch(epoch))
    assert len(whole) == 4
    assert same(list(batches(shards, seed=seed).epoch(epoch, start)), whole[start:])


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing(shards, workers):
    for epoch, start in ((0, 0), (1, 1)):
        found = list(batches(shards, workers=workers).epoch(epoch, start))
        assert same(found, list(batches(shards).epoch(epoch, start)))


def test_an_epoch_has_every_image_once_and_the_next_one_another_order(shards):
    first, second = (identities(list(batches(shards, augmentation=AS_IT_IS).epoch(e))) for e in (0, 1))
    assert len(set(first)) == 24
    assert sorted(first) == sorted(second)
    assert first != second


def test_what_augmentation_does_to_an_image_does_not_depend_on_its_place_in_a_batch(shards):
    found = [identities(list(batches(shards, batch_size=size).epoch(0))) for size in (6, 4)]
    assert found[0] == found[1]


def test_ranks_have_disjoint_images_and_equally_many_batches_though_shards_are_uneven(tmp_path):
    make_shards(tmp_path, train=26, per_shard=4)  # 7 shards, the last of 2
    for epoch in range(4):
        readers = [batches(tmp_path, augmentation=AS_IT_IS, rank=rank, world_size=3) for rank in range(3)]
        assert {reader.num_batches for reader in readers} == {3}  # 2 shards a rank, at worst 4 + 2 samples
        parts = [identities(list(reader.epoch(epoch))) for reader in readers]
        assert [len(part) for part in parts] == [6, 6, 6]
        assert len({number for part in parts for number in part}) == 18


def test_shards_left_out_of_an_epoch_are_others_in_the_next(tmp_path):
    make_shards(tmp_path, train=20, per_shard=4)  # 5 shards for 2 ranks
    counts: Counter[float] = Counter()
    for epoch in range(12):
        for rank in range(2):
            reader = batches(tmp_path, augmentation=AS_IT_IS, batch_size=8, rank=rank, world_size=2)
            counts.update(identities(list(reader.epoch(epoch))))
    assert len(counts) == 20


def test_too_few_shards_for_the_ranks_and_too_large_a_batch_are_usage_errors(shards):
    with pytest.raises(UsageError, match="6 shards for 7 processes: each needs at least one"):
        batches(shards, batch_size=7, rank=0, world_size=7)
    with pytest.raises(UsageError, match="batch size 25, but a process may get no more than 24"):
        batches(shards, batch_size=25)


def test_a_late_start_opens_only_the_shards_that_it_needs(shards, tmp_path):
    folder = Path(shutil.copytree(shards, tmp_path / "copy"))
    reader = batches(folder, buffer=1, batch_size=4)  # in the order of the shards
    expected = list(reader.epoch(0, 4))
    first = reader._shards(0)[0]
    path = folder / f"train-{first:06d}.tar"
    path.write_bytes(b"x" * path.stat().st_size)
    again = batches(folder, buffer=1, batch_size=4)
    assert same(list(again.epoch(0, 4)), expected)
    with pytest.raises(FinetDeployError, match=path.name):
        list(again.epoch(0))


@pytest.mark.parametrize(
    ("batch_size", "world_size", "workers"), [(4, 1, 0), (2, 2, 0), (5, 4, 0), (2, 1, 2)]
)
def test_evaluation_has_every_image_once_in_order(shards, batch_size, world_size, workers):
    dataset = open_dataset("shards", "val", folder=shards)
    found = [
        batch
        for rank in range(world_size)
        for batch in evaluation_batches(
            dataset, PLAIN, batch_size=batch_size, workers=workers, rank=rank, world_size=world_size
        )
    ]
    assert torch.cat([batch.labels for batch in found]).tolist() == [0, 1, 2] * 3
    assert len(set(identities(found))) == 9


def test_a_limit_takes_images_from_all_over(shards):
    dataset = limited(open_dataset("shards", "val", folder=shards), 3)
    (batch,) = evaluation_batches(dataset, PLAIN, batch_size=8)
    whole = identities(
        list(evaluation_batches(open_dataset("shards", "val", folder=shards), PLAIN, batch_size=9))
    )
    assert (len(dataset), identities([batch])) == (3, whole[::3])


def test_training_batches_reads_shards_by_shards_and_others_by_index(shards):
    options = {"batch_size": 2, "seed": 0}
    shard_set = open_dataset("shards", "train", folder=shards)
    assert isinstance(training_batches(shard_set, STRONG, PLAIN, **options), ShardBatches)
    assert isinstance(training_batches(random_dataset(4), STRONG, PLAIN, **options), TrainingBatches)
    with pytest.raises(UsageError, match="shards are read in order"):
        shard_set[0]


def test_writing_keeps_pixels_labels_and_files_and_is_the_same_twice(tmp_path):
    dataset = random_dataset(5, classes=3, size=16)
    for name in ("a", "b"):
        write_shards(dataset, tmp_path / name, "val", samples_per_shard=2)
    assert [p.read_bytes() for p in sorted((tmp_path / "a").iterdir())] == [
        p.read_bytes() for p in sorted((tmp_path / "b").iterdir())
    ]
    read = open_dataset("shards", "val", folder=tmp_path / "a")
    (batch,) = evaluation_batches(read, PLAIN, batch_size=5)
    assert torch.equal(
        (batch.images * 255).round().to(torch.uint8), torch.stack([i for i, _ in dataset.items])
    )
    folder = open_dataset("folder", "val", folder=make_image_folder(tmp_path / "f"))
    write_shards(folder, tmp_path / "c", "val")
    with tarfile.open(tmp_path / "c" / "val-000000.tar") as tar:
        held = tar.extractfile("000000003.png")
        assert held is not None
        assert held.read() == (tmp_path / "f/val/class_001/1.png").read_bytes()


def test_a_split_is_written_once_and_both_have_the_same_classes(shards, tmp_path):
    folder = Path(shutil.copytree(shards, tmp_path / "copy"))
    with pytest.raises(UsageError, match="has shards of train already"):
        write_shards(random_dataset(4), folder, "train")
    index = json.loads((folder / "shards.json").read_text())
    del index["splits"]["train"]
    (folder / "shards.json").write_text(json.dumps(index))
    with pytest.raises(UsageError, match="other classes"):
        write_shards(random_dataset(4), folder, "train")


def test_a_failing_writer_leaves_no_index_and_no_temporary_file(tmp_path):
    dataset = random_dataset(4, size=16)
    dataset.items[3] = (BadImage("truncated", "3.png"), 0)
    with pytest.raises(BadImage):
        write_shards(dataset, tmp_path, "val", samples_per_shard=2)
    assert [path.name for path in tmp_path.iterdir()] == ["val-000000.tar"]
    dataset.skip_bad_images = True
    write_shards(dataset, tmp_path, "val", samples_per_shard=2)
    assert len(open_dataset("shards", "val", folder=tmp_path)) == 3


# Distrust


def damaged(folder: Path, change: Callable[[dict], None]) -> None:
    index = json.loads((folder / "shards.json").read_text())
    change(index)
    (folder / "shards.json").write_text(json.dumps(index))


def entry(index: dict) -> dict:
    return index["splits"]["val"][1]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda index: entry(index).update(file="pipe:touch was_here"), "not an index"),
        (lambda index: entry(index).update(file="../val-000001.tar"), "not an index"),
        (lambda index: entry(index).update(file="/etc/passwd.tar"), "not an index"),
        (lambda index: entry(index).update(file="https:x.tar"), "not an index"),
        (lambda index: entry(index).update(samples=0), "not an index"),
        (lambda index: entry(index).update(bytes=1), "bytes, not 1"),
        (lambda index: entry(index).update(file="val-000009.tar"), "a shard is missing"),
        (lambda index: entry(index).update(file="val-000000.tar"), "listed twice"),
        (lambda index: index.update(schema_version=2), "schema version 2"),
        (lambda index: index.update(extra=1), "not an index"),
        (lambda index: index["splits"].pop("val"), "no shards of val; the index has train"),
    ],
)
def test_a_wrong_index_is_refused_on_opening(shards, tmp_path, change, text):
    folder = Path(shutil.copytree(shards, tmp_path / "copy"))
    damaged(folder, change)
    with pytest.raises(FinetDeployError, match=text):
        open_dataset("shards", "val", folder=folder)


def test_a_folder_without_index_or_a_link_that_leads_out_is_refused(shards, tmp_path):
    with pytest.raises(FinetDeployError, match=r"no shards.json here.*write_shards"):
        open_dataset("shards", "val", folder=tmp_path)
    folder = Path(shutil.copytree(shards, tmp_path / "copy"))
    (folder / "val-000001.tar").rename(tmp_path / "outside.tar")
    (folder / "val-000001.tar").symlink_to(tmp_path / "outside.tar")
    with pytest.raises(FinetDeployError, match="leaves its folder"):
        open_dataset("shards", "val", folder=folder)


def with_shard(
    folder: Path, write: Callable[[tarfile.TarFile], None], mode: str = "w", samples: int = 3
) -> ShardSet:
    """The set whose second shard of `val` was written by `write`, with an index that fits it."""
    path = folder / "val-000001.tar"
    with tarfile.open(path, mode) as tar:
        write(tar)
    facts = {"bytes": path.stat().st_size, "sha256": sha256_file(path), "samples": samples}
    damaged(folder, lambda index: entry(index).update(facts))
    return open_dataset("shards", "val", folder=folder)


def add(tar: tarfile.TarFile, name: str, data: bytes, **header: object) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in header.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(data))


def picture() -> bytes:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (16, 16)).save(stream, "PNG")
    return stream.getvalue()


def sample(tar: tarfile.TarFile, label: bytes = b"0", **others: bytes) -> None:
    files = {"png": picture(), "cls": label, **others}
    for suffix, data in files.items():
        add(tar, f"a.{suffix}", data)


@pytest.mark.parametrize(
    ("write", "text"),
    [
        (
            lambda tar: sample(tar, pyd=b"cos\nsystem\n(S'touch was_here'\ntR."),
            "sample 'a' has cls, png, pyd",
        ),
        (lambda tar: sample(tar, pth=b"x"), "has cls, png, pth"),
        (lambda tar: add(tar, "a.cls", b"0"), "has cls, not one image and cls"),
        (lambda tar: add(tar, "a.png", picture()), "has png, not one image and cls"),
        (lambda tar: sample(tar, b"-1"), "not a number"),
        (lambda tar: sample(tar, b"cat"), "not a number"),
        (lambda tar: sample(tar, b"3"), r"label 3 is out of range: there are 3 classes \(0 to 2\)"),
        (lambda tar: sample(tar), "1 samples, the index says 3"),
        (
            lambda tar: add(tar, "a.png", b"", type=tarfile.SYMTYPE, linkname="/etc/passwd"),
            "not a plain file",
        ),
        (lambda tar: [sample(tar), add(tar, "a.png", b"")], "duplicate file name"),
    ],
)
def test_a_shard_that_holds_anything_else_is_an_error_that_names_it(
    shards, tmp_path, monkeypatch, write, text
):
    monkeypatch.chdir(tmp_path)
    dataset = with_shard(Path(shutil.copytree(shards, tmp_path / "copy")), write)
    with pytest.raises(FinetDeployError, match=rf"{text}.*val-000001.tar"):
        list(evaluation_batches(dataset, PLAIN, batch_size=4))
    assert not Path("was_here").exists()


def test_a_compressed_shard_is_refused_before_it_is_unpacked(shards, tmp_path):
    dataset = with_shard(Path(shutil.copytree(shards, tmp_path / "copy")), sample, "w:gz", samples=1)
    with pytest.raises(FinetDeployError, match="not a shard of ours"):
        list(evaluation_batches(dataset, PLAIN, batch_size=4))


def test_a_shard_that_claims_a_huge_file_is_refused(shards, tmp_path, monkeypatch):
    monkeypatch.setattr("finet_deploy.data.shard_reading.MAX_MEMBER_BYTES", 2000)
    dataset = with_shard(
        Path(shutil.copytree(shards, tmp_path / "copy")), lambda tar: sample(tar, png=bytes(2001))
    )
    with pytest.raises(FinetDeployError, match="'a.png' has 2,001 bytes"):
        list(evaluation_batches(dataset, PLAIN, batch_size=4))


def test_a_flipped_byte_is_found_by_the_hash(shards, tmp_path):
    folder = Path(shutil.copytree(shards, tmp_path / "copy"))
    data = bytearray((folder / "val-000002.tar").read_bytes())
    data[700] ^= 1
    (folder / "val-000002.tar").write_bytes(data)
    dataset = open_dataset("shards", "val", folder=folder)
    with pytest.raises(FinetDeployError, match=r"changed or damaged.*val-000002.tar"):
        list(evaluation_batches(dataset, PLAIN, batch_size=4))


def three(tar: tarfile.TarFile) -> None:
    for name, data in (("a", picture()), ("b", picture()[:45]), ("c", picture())):
        add(tar, f"{name}.png", data)
        add(tar, f"{name}.cls", b"1")


def test_an_unreadable_image_in_a_shard_is_named_or_skipped(shards, tmp_path):
    folder = Path(shutil.copytree(shards, tmp_path / "copy"))
    with pytest.raises(BadImage, match=r"val-000001.tar:b\]; .*--skip-bad-images"):
        list(evaluation_batches(with_shard(folder, three), PLAIN, batch_size=4))
    skipping = open_dataset("shards", "val", folder=folder, skip_bad_images=True)
    found = list(evaluation_batches(skipping, PLAIN, batch_size=4))
    assert sum(len(batch.labels) for batch in found) == len(skipping) - 1
    (name,) = (name for batch in found for name in batch.skipped)
    assert name.endswith("val-000001.tar:b")
    reader = ShardBatches(skipping, AS_IT_IS, PLAIN, batch_size=len(skipping), seed=0)
    (batch,) = reader.epoch(0)
    assert (len(batch.labels), batch.skipped) == (len(skipping), (name,))
