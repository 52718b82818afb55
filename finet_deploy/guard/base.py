"""Bundles of another commit, taken out of git into a folder of their own, so that a change can be held against them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from finet_deploy.errors import FinetDeployError
from finet_deploy.files import atomic_write_bytes, resolve_inside

__all__ = ["bundle_at", "resolve_commit"]

TIMEOUT_SECONDS = 300.0
MAX_FILES = 64  # of one bundle
MAX_BYTES = 2 << 30
REGULAR = ("100644", "100755")  # modes of files; links and submodules are no part of a bundle
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
COMMON_REMOTE = "origin"


def _git(root: Path, *arguments: str) -> bytes:
    """What git prints. FinetDeployError with its own words when it fails."""
    # Hooks and pagers of the repository have no business here.
    command = ["git", "-C", str(root), "-c", f"core.hooksPath={os.devnull}", "--no-pager", *arguments]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=TIMEOUT_SECONDS)
    except FileNotFoundError as error:
        raise FinetDeployError("git is not installed", do="install it, or leave --base out") from error
    except subprocess.TimeoutExpired as error:
        do = "look at the repository"
        raise FinetDeployError(
            f"git did not end in {TIMEOUT_SECONDS:.0f} s", where=str(root), do=do
        ) from error
    if done.returncode != 0:
        words = " ".join(done.stderr.decode("utf-8", "replace").split())[:300]
        raise FinetDeployError(
            f"git {arguments[0]}: {words or 'failed'}", where=str(root), do="look at the repository"
        )
    return done.stdout


def resolve_commit(root: Path, name: str) -> str:
    """The commit that `name` (a branch, here or of origin, a tag or a hash) stands for. FinetDeployError if unknown."""
    for candidate in (f"refs/remotes/{COMMON_REMOTE}/{name}", name):
        try:
            found = _git(
                root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{candidate}^{{commit}}"
            )
        except FinetDeployError:
            continue
        return found.decode().strip()
    raise FinetDeployError(
        f"there is no commit {name!r} here",
        where=str(root),
        do="fetch it first (actions/checkout: fetch-depth: 0), or give another --base",
    )


def bundle_at(root: Path, commit: str, relative: str, target: Path) -> Path | None:
    """The folder `relative` of a commit, written to `target`; None when the commit has no such folder.

    Files kept in Git LFS come through git's own filters, where git-lfs is installed. FinetDeployError when one of them
    stays a pointer, and for anything that is no plain file.
    """
    listing = _git(root, "ls-tree", "-r", "-z", "--full-tree", commit, "--", f"{relative}/")
    entries = [entry for entry in listing.split(b"\0") if entry]
    if not entries:
        return None
    if len(entries) > MAX_FILES:
        raise FinetDeployError(
            f"{len(entries)} files: no bundle", where=f"{commit[:12]}:{relative}", do="check the path"
        )
    for entry in entries:
        head, _, raw = entry.partition(b"\t")
        path, (mode, _, blob) = raw.decode("utf-8", "replace"), head.decode().split()
        if mode not in REGULAR:
            raise FinetDeployError(
                "no plain file", where=f"{commit[:12]}:{path}", do="keep links out of bundles"
            )
        _write(root, commit, path, blob, resolve_inside(target, path.removeprefix(f"{relative}/")))
    return target


def _write(root: Path, commit: str, path: str, blob: str, target: Path) -> None:
    where = f"{commit[:12]}:{path}"
    if int(_git(root, "cat-file", "-s", blob)) > MAX_BYTES:
        raise FinetDeployError(f"file is larger than {MAX_BYTES} bytes", where=where, do="keep it out of git")
    data = _git(root, "cat-file", "--filters", f"--path={path}", blob)
    if data.startswith(LFS_POINTER):
        raise FinetDeployError(
            "only the pointer of a Git LFS file is here", where=where, do="run `git lfs fetch`"
        )
    atomic_write_bytes(target, data)
