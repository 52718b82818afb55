"""Which files a benchmark needs on a phone, and their names there: made of hashes, so that no name gets there."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path

import msgspec

from finet_deploy.bench.protocol import Row, VisitRequest
from finet_deploy.devices.push import RemoteFile, remote_file
from finet_deploy.errors import FinetDeployError
from finet_deploy.files import resolve_inside

__all__ = ["RUNNER", "names_on_phone", "on_phone", "row_files", "runner_files"]

FILES, RUNNER = "files", "runner-"


def runner_files(root: Path) -> tuple[list[RemoteFile], str]:
    """The files of the runner in the folder `root`, and the name of its folder on the phone."""
    paths = sorted(path for path in root.rglob("*") if path.is_file() and not path.is_symlink())
    if root / "run.sh" not in paths:
        do = "run `finet-deploy runner build`"
        raise FinetDeployError("no run.sh in the runner's folder", where=str(root), do=do)
    # Everything may be executed: some phones' loaders ask for it, and file systems here may have lost the modes.
    files = [remote_file(path, path.relative_to(root).as_posix(), mode=0o755) for path in paths]
    listing = "".join(f"{file.sha256} {file.path}\n" for file in files)
    folder = RUNNER + hashlib.sha256(listing.encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return [dataclasses.replace(file, path=f"{folder}/{file.path}") for file in files], folder


def row_files(row: Row, folder: Path) -> list[RemoteFile]:
    """Artifact and golden file of a row; its bundle is relative to the run folder `folder`.

    FinetDeployError when a file is not the one that the job names.
    """
    bundle = folder.resolve() / row.bundle
    artifact, golden = names_on_phone(row)
    files = []
    for local, expected, path in (
        (resolve_inside(bundle, row.artifact.file), row.artifact.sha256, artifact),
        (resolve_inside(bundle, row.golden.file), row.golden.sha256, golden),
    ):
        file = remote_file(local, path)
        if file.sha256 != expected:
            do = "export the bundle again and start a new run"
            raise FinetDeployError("the file is not the one that the job names", where=str(local), do=do)
        files.append(file)
    return files


def on_phone(request: VisitRequest, folder: str) -> VisitRequest:
    """The request with the paths as the runner on the phone sees them; `folder` is ours there."""
    artifact, golden = names_on_phone(request.row)
    return msgspec.structs.replace(
        request, artifact_path=f"{folder}/{artifact}", golden_path=f"{folder}/{golden}"
    )


def names_on_phone(row: Row) -> tuple[str, str]:
    """Artifact and golden file, relative to our folder there."""
    kind = row.artifact.format if re.fullmatch("[a-z0-9]{1,8}", row.artifact.format) else "bin"
    return f"{FILES}/{row.artifact.sha256}.{kind}", f"{FILES}/{row.golden.sha256}.safetensors"
