"""Where runner folders are: inside the wheel, or in the user's cache, by the hash of what they are built from."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

from finet_deploy.errors import FinetDeployError
from finet_deploy.files import explain_os_error, replace_directory, resolve_inside, temporary_directory_beside
from finet_deploy.runner.compile import RULES
from finet_deploy.runner.manifest import (
    MANIFEST_FILE,
    Manifest,
    check_folder,
    not_executable,
    read_manifest,
)
from finet_deploy.runner.targets import WHEELS, target

__all__ = ["cache_folder", "cached_runner", "native_sources", "runner_command", "runner_folder", "source_key"]

PACKAGE = Path(__file__).resolve().parent
RECIPE = 4  # to be raised when `build.py` puts other files into a folder
CLOCK_LIBRARY = "libfinet_clock.so"  # preloaded into profiled visits
INSTALL_AGAIN = "install finet-deploy again (in a source tree: make wheel)"
SOURCE_SUFFIXES = (".c", ".cpp", ".h", ".sh", ".txt")


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
    """What goes into the runner's folder, compiled or as it is, in a fixed order."""
    files = [*(sources / "src").iterdir(), *(sources / "licenses").iterdir(), sources / "run.sh"]
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
    """The checked runner folder for target `name` (`aarch64` or `x86_64`): the packed one, else the built one.

    Neither is used unless it was made from the sources that are here. Raises UsageError for an unknown target,
    FinetDeployError when there is no folder or it is not whole: a damaged packed one is not passed over in silence.
    """
    target(name)
    sources = native_sources()
    packed = PACKAGE / "data" / name
    key = None if sources is None else source_key(name, sources)
    if packed.is_dir():
        manifest = read_manifest(packed, do=INSTALL_AGAIN)
        if key is None or manifest.key == key:
            return _packed_runner(name, packed, manifest.key)
    if key is not None:
        cached = cached_runner(name, key)
        if cached.is_dir():
            check_folder(cached)
            return cached
    do = f"finet-deploy runner build --target {name}"
    if packed.is_dir():
        what = f"the native runner for {name} was built from other sources than those beside it"
        raise FinetDeployError(what, where=str(packed), do=f"{INSTALL_AGAIN}; or {do}")
    raise FinetDeployError(f"there is no native runner for {name} yet", do=do)


def _packed_runner(name: str, packed: Path, key: str) -> Path:
    """The packed folder; where its programs may not be executed (some installers drop the modes), a copy."""
    manifest = check_folder(packed, modes=False, do=INSTALL_AGAIN)
    if not_executable(packed, manifest) is None:
        return packed
    cached = cached_runner(name, key)
    try:
        check_folder(cached)
    except FinetDeployError:  # not there, or not whole
        _copy_with_modes(packed, manifest, cached)
        check_folder(cached)
    return cached


def _copy_with_modes(packed: Path, manifest: Manifest, to: Path) -> None:
    modes = {
        MANIFEST_FILE: 0o644,
        **{file.path: 0o755 if file.executable else 0o644 for file in manifest.files},
    }
    with temporary_directory_beside(to) as folder:
        try:
            for path, mode in modes.items():
                copy = folder / path
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(resolve_inside(packed, path), copy)
                copy.chmod(mode)
        except OSError as error:
            raise explain_os_error(error, "copy the runner", to) from error
        replace_directory(folder, to)


def runner_command(folder: Path) -> tuple[str, ...]:
    """What starts the runner of this folder on a machine of its architecture; request and records follow."""
    return ("/bin/sh", str(folder / "run.sh"))
