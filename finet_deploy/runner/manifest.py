"""`manifest.json` of a runner folder: what it is made of, file by file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from finet_deploy.errors import FinetDeployError
from finet_deploy.files import resolve_inside, sha256_file
from finet_deploy.json_files import read_json

__all__ = ["MANIFEST_FILE", "FileEntry", "Manifest", "check_folder", "not_executable", "read_manifest"]

SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
MAX_MANIFEST_BYTES = 1 << 20
AGAIN = "build it again: finet-deploy runner build --force"


class FileEntry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A file of the folder. origin: the package that it comes from, or that its sources are in."""

    path: str
    sha256: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    bytes: int
    executable: bool
    origin: str
    licence: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """key: hash of sources, releases and build rules; folders with one key are interchangeable.

    command: what starts the runner, relative to the folder (an emulator cannot go through run.sh).
    """

    schema_version: int = SCHEMA_VERSION
    target: str
    key: str
    tool_version: str
    versions: dict[str, str]
    compiler: str
    segment_alignment: int
    command: tuple[str, ...]
    files: tuple[FileEntry, ...]


def read_manifest(folder: Path, *, do: str = AGAIN) -> Manifest:
    """The manifest of `folder`; FinetDeployError, with the advice `do`, when there is none that can be read."""
    path = folder / MANIFEST_FILE
    if not path.is_file():
        raise FinetDeployError("the runner's manifest is missing", where=str(path), do=do)
    manifest: Manifest = read_json(
        path, Manifest, max_bytes=MAX_MANIFEST_BYTES, what="not a runner's manifest", do=do
    )
    if manifest.schema_version != SCHEMA_VERSION:
        found = f"manifest has schema_version {manifest.schema_version}, this program reads {SCHEMA_VERSION}"
        raise FinetDeployError(found, where=str(path), do=do)
    return manifest


def check_folder(folder: Path, *, modes: bool = True, do: str = AGAIN) -> Manifest:
    """The manifest, after every file was found whole and, with `modes`, those that are programs executable.

    FinetDeployError naming the first file that is not, with the advice `do`.
    """
    manifest = read_manifest(folder, do=do)
    for entry in manifest.files:
        path = resolve_inside(folder, entry.path)
        if not path.is_file():
            raise FinetDeployError("a file of the runner is missing", where=str(path), do=do)
        if path.stat().st_size != entry.bytes or sha256_file(path) != entry.sha256:
            raise FinetDeployError("a file of the runner was changed", where=str(path), do=do)
    locked = not_executable(folder, manifest)
    if modes and locked is not None:
        raise FinetDeployError("a file of the runner may not be executed", where=str(locked), do=do)
    return manifest


def not_executable(folder: Path, manifest: Manifest) -> Path | None:
    """The first program of the folder that may not be executed here: lost its mode, or on a `noexec` file system."""
    paths = [resolve_inside(folder, entry.path) for entry in manifest.files if entry.executable]
    return next((path for path in paths if not os.access(path, os.X_OK)), None)
