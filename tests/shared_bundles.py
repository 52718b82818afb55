"""Bundles that are exported once for all tests, whichever test process needs them first. Never change one."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from finet_deploy.bench.settings import load_suite
from finet_deploy.export import Bundle
from finet_deploy.runtimes import FORMATS
from finet_deploy.zoo import create_model

__all__ = ["export_small", "export_whole", "shared_folder", "table4_bundles"]

SIDE = 64  # pixels


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


def export_small(model: Any, path: Path, *, formats: Sequence[str] = tuple(FORMATS)) -> Bundle:
    """An untrained network on pictures of SIDE x SIDE pixels: an inference costs a twelfth of one at 224 x 224."""
    return _export(model, path, min(SIDE, model.model_config.input_size), formats)


def export_whole(model: Any, path: Path) -> Bundle:
    """The same on pictures of the network's own size, in every format."""
    return _export(model, path, model.model_config.input_size, tuple(FORMATS))


def _export(model: Any, path: Path, side: int, formats: Sequence[str]) -> Bundle:
    from finet_deploy.export import export
    from finet_deploy.images import GOLDEN_PHOTOS, Preprocessing, default_images, evaluation_inputs
    from finet_deploy.untrained import prepare_untrained

    preprocessing = Preprocessing(resize=round(side * 256 / 224), crop=side)
    pictures = default_images(24, preprocessing)
    prepare_untrained(model, pictures)
    inputs = evaluation_inputs(pictures[:GOLDEN_PHOTOS])
    return export(model, path, formats=formats, inputs=inputs, preprocessing=preprocessing)


def table4_bundles(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for `--bundles-dir` with every bundle of the suite in it: its networks, for small pictures.

    `bench` takes them for its own, which are of the same networks.
    """
    with shared_folder(tmp_path_factory) as folder:
        for row in load_suite("table4").rows:
            if not (folder / row.name).is_dir():  # a bundle's folder gets its name when it is whole
                export_small(create_model(row.model, seed=0, **row.options), folder / row.name)
        return folder
