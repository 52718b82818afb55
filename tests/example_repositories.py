"""The example repository, exported once: as git has it on its main branch, and with each bad export put into it."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.shared_bundles import shared_folder

__all__ = ["BAD", "EXAMPLE", "PROJECT", "commit_all", "environment", "example_repository", "git"]

PROJECT = Path(__file__).resolve().parents[1]
EXAMPLE = PROJECT / "tests" / "example_repo"
# What is put in, into which bundle.
BAD = {
    "unfused": "classifier",
    "wrong_statistics": "classifier",
    "swapped_groups": "classifier",
    "int8_beyond_limit": "classifier_int8",
    "flipped_byte": "classifier",
}
IDENTITY = (
    "-c",
    "user.name=Example",
    "-c",
    "user.email=example@example.org",
    "-c",
    "init.defaultBranch=main",
)


def environment() -> dict[str, str]:
    """Of a process that finds this package, and whose git finds no configuration of the machine."""
    path = os.pathsep.join([str(PROJECT), *filter(None, [os.environ.get("PYTHONPATH")])])
    quiet = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "OMP_NUM_THREADS": "1"}
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "PYTEST_"))}
    return {**kept, **quiet, "PYTHONPATH": path}


def git(repository: Path, *arguments: str) -> str:
    command = ["git", "-C", str(repository), *IDENTITY, *arguments]
    return subprocess.run(command, env=environment(), check=True, capture_output=True, text=True).stdout


def commit_all(repository: Path, message: str) -> None:
    git(repository, "add", "--all")
    git(repository, "commit", "--quiet", "--message", message)


def _module(name: str) -> object:
    """One of the example's scripts, as Python finds it beside itself."""
    sys.path.insert(0, str(EXAMPLE))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(EXAMPLE))


def _export(folder: Path) -> None:
    """The repository on its main branch, and `bad/NAME/BUNDLE` beside it."""
    repository = folder / "unfinished"
    shutil.copytree(EXAMPLE, repository, ignore=shutil.ignore_patterns("__pycache__"))
    checkpoint = _module("make_checkpoint").make_checkpoint(repository / "checkpoint.safetensors")  # type: ignore[attr-defined]
    _module("export").export_all(checkpoint, repository / "bundles")  # type: ignore[attr-defined]
    makers = _module("bad_exports").BAD  # type: ignore[attr-defined]
    assert set(makers) == set(BAD)
    for name, bundle in BAD.items():
        bad = Path(shutil.copytree(repository / "bundles" / bundle, folder / "bad" / name / bundle))
        makers[name](bad, checkpoint)
    git(repository, "init", "--quiet")
    commit_all(repository, "An export")
    repository.rename(folder / "repository")


def example_repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `repository` and `bad`; never change it, copy it."""
    with shared_folder(tmp_path_factory, "example") as folder:
        if not (folder / "repository").is_dir():
            _export(folder)
        return folder
