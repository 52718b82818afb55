"""Reading shards with WebDataset's tar reader, and with distrust.

Only its iterators over an open tar file are used: its opener takes `pipe:` addresses, which are commands, and its
decoders take pickles. Here a file is one that the index names, inside the folder, and a sample is an image and a
label; everything else in a shard is an error.
"""

from __future__ import annotations

import functools
import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from finet_deploy.data.pictures import read_picture
from finet_deploy.data.shard_files import ShardEntry, ShardSet, webdataset
from finet_deploy.errors import FinetDeployError
from finet_deploy.files import explain_os_error, resolve_inside, sha256_file

__all__ = ["Sample", "read_shard"]

IMAGE_SUFFIXES = {"jpg", "jpeg", "png", "webp", "bmp", "ppm", "tif", "tiff"}
LABEL_SUFFIX = "cls"
MAX_MEMBER_BYTES = 1 << 26
DO = "write the shards again with finet_deploy.data.write_shards"


class Sample(NamedTuple):
    """number: over all shards of the split, the same whatever the order of reading. encoded: the image file."""

    number: int
    name: str
    encoded: bytes
    label: int

    def image(self) -> Tensor:
        """uint8 (3, H, W). Raises BadImage."""
        return read_picture(io.BytesIO(self.encoded), self.name)


def read_shard(dataset: ShardSet, shard: int) -> Iterator[Sample]:
    """The samples of one shard, in its order. Raises FinetDeployError, naming the file, for anything unexpected."""
    entry = dataset.entries[shard]
    path = resolve_inside(dataset.folder, entry.file)
    _require_sound(path, entry)
    iterators, count = webdataset().tariterators, 0
    try:
        with path.open("rb") as stream:
            files = iterators.tar_file_expander([{"url": str(path), "stream": stream}])
            for raw in iterators.group_by_keys(files):
                yield _sample(raw, path, dataset.first[shard] + count, len(dataset.classes))
                count += 1
    except (tarfile.TarError, ValueError) as error:
        raise _damaged(path, str(error)) from error
    except OSError as error:
        raise explain_os_error(error, "read a shard", path) from error
    if count != entry.samples:
        raise _damaged(path, f"{count} samples, the index says {entry.samples}")


@functools.cache
def _require_sound(path: Path, entry: ShardEntry) -> None:
    """Once a process: the hash, and that every member is a plain file of a reasonable size.

    A compressed tar or a sparse member of a few bytes can unpack to any size; neither is written by us.
    """
    if sha256_file(path) != entry.sha256:
        raise FinetDeployError(
            "the shard was changed or damaged: its SHA-256 is not the index's",
            where=str(path),
            do="copy it again, or write the shards again",
        )
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.issparse():
                    raise _damaged(path, f"{member.name!r} is not a plain file")
                if member.size > MAX_MEMBER_BYTES:
                    raise _damaged(path, f"{member.name!r} has {member.size:,} bytes")
    except (tarfile.TarError, ValueError) as error:
        raise _damaged(path, str(error)) from error


def _sample(raw: dict[str, object], path: Path, number: int, classes: int) -> Sample:
    key = str(raw["__key__"])
    name = f"{path}:{key}"
    content = {suffix: value for suffix, value in raw.items() if not suffix.startswith("__")}
    images = [suffix for suffix in content if suffix in IMAGE_SUFFIXES]
    if len(images) != 1 or set(content) != {*images, LABEL_SUFFIX}:
        raise _damaged(path, f"sample {key!r} has {', '.join(sorted(content))}, not one image and cls")
    digits, encoded = content[LABEL_SUFFIX], content[images[0]]
    assert isinstance(digits, bytes) and isinstance(encoded, bytes)  # what a tar holds
    if not digits.isdigit() or len(digits) > 9:
        raise _damaged(path, f"the label of sample {key!r} is not a number")
    label = int(digits)
    if label >= classes:
        raise FinetDeployError(
            f"label {label} is out of range: there are {classes} classes (0 to {classes - 1})",
            where=name,
            do="correct the labels and write the shards again",
        )
    return Sample(number, name, encoded, label)


def _damaged(path: Path, found: str) -> FinetDeployError:
    return FinetDeployError(f"not a shard of ours: {found}", where=str(path), do=DO)
