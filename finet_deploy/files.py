"""Files that are either whole or not there: temporary name, then rename. Bounded reads, no path that escapes."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from finet_deploy.errors import FinetDeployError, UsageError

__all__ = [
    "atomic_write_bytes",
    "atomic_write_text",
    "explain_os_error",
    "folder_name",
    "read_bounded",
    "replace_directory",
    "resolve_inside",
    "sha256_bytes",
    "sha256_file",
    "temporary_directory_beside",
]

_ADVICE = {
    errno.ENOSPC: "free some space or choose another folder",
    errno.EDQUOT: "free some space or choose another folder",
    errno.EACCES: "choose a folder that you may write to",
    errno.EPERM: "choose a folder that you may write to",
    errno.EROFS: "choose a folder on a writable file system",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of the path is a file: choose another path",
    errno.EISDIR: "the path is a folder: name a file in it",
}


def explain_os_error(error: OSError, action: str, path: Path) -> FinetDeployError:
    """The readable form of an `OSError` met while doing `action` (`write`, `read`, ...) on `path`."""
    reason = error.strerror or str(error)
    advice = _ADVICE.get(error.errno or 0, "check the path and its permissions")
    return FinetDeployError(f"cannot {action}: {reason}", where=str(path), do=advice)


@contextlib.contextmanager
def _explained(action: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise explain_os_error(error, action, path) from error


def atomic_write_bytes(path: Path | str, data: bytes) -> None:
    """Write `data` so that `path` holds either its old content or all of the new one."""
    path = Path(path)
    with _explained("write", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
            os.chmod(temporary, 0o666 & ~_umask())  # mkstemp's 0600 would surprise whoever shares the folder
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def atomic_write_text(path: Path | str, text: str) -> None:
    """`atomic_write_bytes` of UTF-8 text."""
    atomic_write_bytes(path, text.encode("utf-8"))


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def read_bounded(path: Path | str, max_bytes: int) -> bytes:
    """The file's bytes; `FinetDeployError` when it is missing, unreadable or larger than `max_bytes`."""
    path = Path(path)
    with _explained("read", path), path.open("rb") as stream:
        data = stream.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise FinetDeployError(
            f"file is larger than {max_bytes} bytes",
            where=str(path),
            do="this is not a file of ours: check it",
        )
    return data


def sha256_bytes(data: bytes) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path | str) -> str:
    """Hex SHA-256 of a file, read in blocks of 1 MiB."""
    path = Path(path)
    digest = hashlib.sha256()
    with _explained("read", path), path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def folder_name(text: str, otherwise: str) -> str:
    """A name for a folder out of any text: no path comes of it. `otherwise`: where nothing of the text is left."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-") or otherwise


def resolve_inside(folder: Path | str, relative: str) -> Path:
    """`folder / relative`, refused when it is absolute, climbs out with `..`, or a link leads out."""
    root = Path(folder).resolve()
    if not relative or "\0" in relative or "\\" in relative or Path(relative).is_absolute():
        raise FinetDeployError(
            f"path {relative!r} is not a relative path", where=str(folder), do="do not trust this folder"
        )
    target = (root / relative).resolve()
    if ".." in Path(relative).parts or not target.is_relative_to(root) or target == root:
        raise FinetDeployError(
            f"path {relative!r} leaves its folder", where=str(folder), do="do not trust this folder"
        )
    return target


@contextlib.contextmanager
def temporary_directory_beside(target: Path | str) -> Iterator[Path]:
    """A hidden folder next to `target` (same file system, so that a rename is atomic), gone on any exit."""
    target = Path(target)
    with _explained("create a folder", target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent))
        os.chmod(temporary, 0o777 & ~_umask())
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def replace_directory(temporary: Path, target: Path) -> None:
    """Move the finished folder `temporary` to `target`; an old `target` stays until the new one is in place."""
    with _explained("write", target):
        if not target.exists():
            os.rename(temporary, target)
            return
        if target.is_symlink() or not target.is_dir():
            raise UsageError(
                "output exists and is not a folder", where=str(target), do="choose another output"
            )
        backup = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".old", dir=target.parent))
        os.rename(target, backup / "old")
        try:
            os.rename(temporary, target)
        except BaseException:
            os.rename(backup / "old", target)
            raise
        finally:
            shutil.rmtree(backup, ignore_errors=True)
