"""Tar shards in WebDataset's form, with an index: for data sets that are too large to be read file by file.

A folder holds `train-000000.tar`, ..., `val-000000.tar`, ... and `shards.json`. A sample in a shard is two files of
one name: the image (`jpg`, `png`, `webp`, ...) and `cls`, its label in decimal digits. The index gives the classes'
names and, for each shard, its number of samples, bytes and SHA-256: so each rank knows how many batches all ranks
have before anything is read, and only files that are named there are opened.
"""

from __future__ import annotations

import functools
import io
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import torch
from msgspec import Meta
from torch import Tensor

from finet_deploy.data.augment import derived_seed
from finet_deploy.data.dataset import BadImage, ImageDataset, fingerprint, spread
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.files import atomic_write_bytes, explain_os_error, read_bounded, resolve_inside, sha256_file
from finet_deploy.json_files import encode_json

__all__ = ["INDEX_FILE", "ShardEntry", "ShardSet", "open_shards", "write_shards"]

INDEX_FILE = "shards.json"
SCHEMA_VERSION = 1
MAX_INDEX_BYTES = 1 << 24
Positive = Annotated[int, Meta(ge=1)]


class ShardEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One tar file."""

    file: Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.tar$")]
    samples: Positive
    bytes: Positive
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class ShardIndex(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`shards.json`."""

    schema_version: int = SCHEMA_VERSION
    classes: Annotated[tuple[str, ...], Meta(min_length=1)]
    splits: dict[str, tuple[ShardEntry, ...]]


class ShardSet:
    """One split of a folder of shards. Its images are read in order only: by `ShardBatches`, `evaluation_batches`.

    chosen: the samples to evaluate on, by their number over all shards; None for all.
    """

    name = "shards"

    def __init__(
        self,
        folder: Path,
        entries: tuple[ShardEntry, ...],
        classes: tuple[str, ...],
        *,
        skip_bad_images: bool = False,
        chosen: tuple[int, ...] | None = None,
    ) -> None:
        self.folder, self.entries, self.classes = folder, entries, classes
        self.skip_bad_images, self.chosen = skip_bad_images, chosen
        self.first = np.cumsum([0, *(entry.samples for entry in entries)]).tolist()  # sample number, by shard

    @functools.cached_property
    def fingerprint(self) -> str:
        """Over class names and the shards' hashes."""
        return fingerprint([*self.classes, *(entry.sha256 for entry in self.entries), repr(self.chosen)])

    def __len__(self) -> int:
        return self.first[-1] if self.chosen is None else len(self.chosen)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        raise UsageError("shards are read in order", where=str(self.folder), do="use training_batches()")

    def limited(self, count: int) -> ShardSet:
        """`count` samples of it, evenly spread."""
        chosen = tuple(spread(self.first[-1], count))
        return ShardSet(
            self.folder, self.entries, self.classes, skip_bad_images=self.skip_bad_images, chosen=chosen
        )


def open_shards(split: str, folder: Path, *, skip_bad_images: bool = False) -> ShardSet:
    """The shards of `split`. Each has to be there, with the size that the index gives; hashes are checked on reading.

    Raises FinetDeployError, naming the file.
    """
    if not folder.is_dir():
        raise FinetDeployError("no such folder of shards", where=str(folder), do="check --data")
    index = _read_index(folder)
    if not index.splits.get(split):
        raise FinetDeployError(
            f"no shards of {split}; the index has {', '.join(index.splits) or 'none'}",
            where=str(folder / INDEX_FILE),
            do=f"write them with finet_deploy.data.write_shards(dataset, folder, {split!r})",
        )
    entries = index.splits[split]
    for entry in entries:
        path = resolve_inside(folder, entry.file)
        size = path.stat().st_size if path.is_file() else None
        if size != entry.bytes:
            found = (
                "a shard is missing" if size is None else f"the shard has {size:,} bytes, not {entry.bytes:,}"
            )
            raise FinetDeployError(found, where=str(path), do="copy it again, or write the shards again")
    return ShardSet(folder, entries, index.classes, skip_bad_images=skip_bad_images)


def _read_index(folder: Path) -> ShardIndex:
    path = folder / INDEX_FILE
    if not path.is_file():
        raise FinetDeployError(
            f"no {INDEX_FILE} here, so how many samples a shard has is not known",
            where=str(folder),
            do="write the shards with finet_deploy.data.write_shards(dataset, folder, split)",
        )
    try:
        index = msgspec.json.decode(read_bounded(path, MAX_INDEX_BYTES), type=ShardIndex)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FinetDeployError(
            f"not an index of shards: {error}", where=str(path), do="write the shards again"
        ) from error
    if index.schema_version != SCHEMA_VERSION:
        raise FinetDeployError(
            f"index of schema version {index.schema_version}, this program reads {SCHEMA_VERSION}",
            where=str(path),
            do="write the shards again",
        )
    files = [entry.file for entries in index.splits.values() for entry in entries]
    if len(set(files)) < len(files):
        raise FinetDeployError("a shard is listed twice", where=str(path), do="write the shards again")
    return index


def write_shards(
    dataset: ImageDataset,
    folder: Path | str,
    split: str,
    *,
    samples_per_shard: int = 1000,
    seed: int = 0,
    tell: Callable[[int], None] = lambda _samples: None,
) -> tuple[ShardEntry, ...]:
    """Write `dataset` as the shards of `split` into `folder`, and enter them in its index.

    `train` is shuffled once by `seed`: image folders come sorted by class, and training shuffles whole shards and
    within a buffer only. Image files go in as they are, other images as PNG. Unreadable images are left out if
    `dataset.skip_bad_images`. tell: told the number of samples after each shard.

    Raises UsageError when the index has this split already, or other classes; FinetDeployError for a full disk.
    """
    folder = Path(folder)
    if split not in ("train", "val") or samples_per_shard < 1:
        raise UsageError(f"split {split!r}, {samples_per_shard} samples", do="use train or val, 1 or more")
    index = _index_to_extend(dataset, folder, split)
    order = list(range(len(dataset)))
    if split == "train":
        generator = torch.Generator().manual_seed(derived_seed(seed, len(order)))
        order = torch.randperm(len(order), generator=generator).tolist()
    entries: list[ShardEntry] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for number, begin in enumerate(range(0, len(order), samples_per_shard)):
            chosen = order[begin : begin + samples_per_shard]
            entry = _write_shard(dataset, folder, f"{split}-{number:06d}.tar", chosen)
            entries += [entry] if entry else []
            tell(begin + len(chosen))
    except OSError as error:
        raise explain_os_error(error, "write shards", folder) from error
    if not entries:
        raise FinetDeployError(
            f"{dataset.name} has no readable image", where=str(folder), do="check the data"
        )
    index = msgspec.structs.replace(index, splits={**index.splits, split: tuple(entries)})
    atomic_write_bytes(folder / INDEX_FILE, encode_json(index))
    return tuple(entries)


def _index_to_extend(dataset: ImageDataset, folder: Path, split: str) -> ShardIndex:
    if not (folder / INDEX_FILE).exists():
        return ShardIndex(classes=tuple(dataset.classes), splits={})
    index = _read_index(folder)
    if split in index.splits:
        raise UsageError(f"the folder has shards of {split} already", where=str(folder), do="choose another")
    if index.classes != tuple(dataset.classes):
        raise UsageError(
            f"the folder's shards have other classes than {dataset.name}",
            where=str(folder),
            do="choose another",
        )
    return index


def _write_shard(dataset: ImageDataset, folder: Path, file: str, chosen: list[int]) -> ShardEntry | None:
    library = webdataset()
    handle, temporary = tempfile.mkstemp(prefix=f".{file}.", suffix=".tmp", dir=folder)
    samples = 0
    try:
        # mtime: the same data gives the same bytes.
        with os.fdopen(handle, "wb") as stream, library.TarWriter(stream, encoder=False, mtime=0) as tar:
            for index in chosen:
                try:
                    image, suffix, label = _encoded(dataset, index)
                except BadImage:
                    if not getattr(dataset, "skip_bad_images", False):
                        raise
                    continue
                tar.write({"__key__": f"{index:09d}", suffix: image, "cls": str(label).encode()})
                samples += 1
        if not samples:
            return None
        os.chmod(temporary, 0o644)
        size, sha256 = os.path.getsize(temporary), sha256_file(temporary)
        os.replace(temporary, folder / file)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return ShardEntry(file=file, samples=samples, bytes=size, sha256=sha256)


def _encoded(dataset: ImageDataset, index: int) -> tuple[bytes, str, int]:
    if hasattr(dataset, "encoded"):
        return dataset.encoded(index)
    from PIL import Image

    image, label = dataset[index]
    stream = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()).save(stream, format="PNG")
    return stream.getvalue(), "png", label


def webdataset() -> Any:
    """The library, loaded on first use. FinetDeployError, with the command that installs it, when it is not there."""
    try:
        import webdataset as library  # type: ignore[import-untyped]
    except ImportError as error:
        raise FinetDeployError(
            f"webdataset cannot be loaded: {error}", do="pip install 'finet-deploy[train]'"
        ) from error
    return library
