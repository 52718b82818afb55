"""Bundles that are exported once for all tests, whichever test process needs them first. Never change one."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from finet_deploy.bench.settings import load_suite
from finet_deploy.cli import run

__all__ = ["shared_folder", "table4_bundles"]


@contextlib.contextmanager
def shared_folder(tmp_path_factory: pytest.TempPathFactory, name: str = "bundles") -> Iterator[Path]:
    """A folder that this test session's processes share, held by one of them at a time."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder = base / f"shared-{name}"
    folder.mkdir(exist_ok=True)
    with (base / f"shared-{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield folder


def table4_bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder for `--bundles-dir`, with every bundle of the suite in it."""
    with shared_folder(tmp_path_factory) as folder:
        if all((folder / row.name).is_dir() for row in load_suite("table4").rows):
            return folder  # a bundle's folder gets its name when it is whole
        command = ["bench", "--suite", "table4", "--preset", "smoke", "--runtimes", "onnxruntime", "-q"]
        # In this process, which has the exporters loaded or needs them next.
        assert run([*command, "--bundles-dir", str(folder), "-o", str(folder.parent / "table4-run")]) == 0
        return folder
