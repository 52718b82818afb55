"""Where runner folders are: inside the wheel, or in the user's cache, by the hash of what they are built from."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from finet_deploy.errors import FinetDeployError
from finet_deploy.runner.compile import RULES
from finet_deploy.runner.manifest import check_folder, read_manifest
from finet_deploy.runner.targets import WHEELS, target

__all__ = ["cache_folder", "cached_runner", "native_sources", "runner_command", "runner_folder", "source_key"]

PACKAGE = Path(__file__).resolve().parent
RECIPE = 2  # to be raised when `build.py` puts other files into a folder
SOURCE_SUFFIXES = (".c", ".cpp", ".h", ".sh")


def cache_folder() -> Path:
    """Where this tool keeps what it can make again: `$XDG_CACHE_HOME/finet-deploy`, else below `~/.cache`."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "finet-deploy"


def native_sources() -> Path | None:
    """The C++ sources: packed beside this module, or in the source tree; None when neither is there."""
    for folder in (PACKAGE / "native", PACKAGE.parents[1] / "android_app" / "native"):
        if (folder / "src" / "main.cpp").is_file():
            return folder
    return None


def source_files(sources: Path) -> list[Path]:
    """What the runner is compiled from, in a fixed order."""
    files = [*(sources / "src").iterdir(), sources / "run.sh"]
    return sorted(file for file in files if file.suffix in SOURCE_SUFFIXES)


def source_key(name: str, sources: Path) -> str:
    """Hash of all that a folder for target `name` is made from: sources, releases, compiler options."""
    digest = hashlib.sha256(repr((target(name), WHEELS, RULES, RECIPE)).encode())
    for file in source_files(sources):
        data = file.read_bytes()
        digest.update(f"{file.name} {len(data)}\n".encode() + data)
    return digest.hexdigest()


def cached_runner(name: str, key: str) -> Path:
    """Where the folder with this key is kept."""
    return cache_folder() / "runner" / f"{name}-{key[:16]}"


def runner_folder(name: str) -> Path:
    """The checked runner folder for target `name` (`aarch64` or `x86_64`).

    Raises UsageError for an unknown target, FinetDeployError when the folder is not there or not whole.
    """
    target(name)
    sources = native_sources()
    packed = PACKAGE / "data" / name
    key = None if sources is None else source_key(name, sources)
    # In a source tree a packed folder may be older than the sources.
    if packed.is_dir() and (key is None or read_manifest(packed).key == key):
        check_folder(packed)
        return packed
    if key is not None:
        cached = cached_runner(name, key)
        if cached.is_dir():
            check_folder(cached)
            return cached
    raise FinetDeployError(
        f"there is no native runner for {name} yet", do=f"finet-deploy runner build --target {name}"
    )


def runner_command(folder: Path) -> tuple[str, ...]:
    """What starts the runner of this folder on a machine of its architecture; request and records follow."""
    return ("/bin/sh", str(folder / "run.sh"))
