"""The app's own code on this machine's Java, as a runner: what a simulated phone starts. Its times are no phone's."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from pathlib import Path

from finet_deploy.app.fetch import fetch
from finet_deploy.app.java import class_jar, compile_java, zip_entries
from finet_deploy.app.libraries import libraries
from finet_deploy.app.pack import Entry, pack
from finet_deploy.app.sources import require_sources, source_key, stand_in_sources
from finet_deploy.errors import FinetDeployError
from finet_deploy.files import replace_directory, temporary_directory_beside
from finet_deploy.runner.folder import cache_folder

__all__ = ["build_stand_in", "stand_in_command", "stand_in_folder"]

LIBRARY = "onnxruntime"
NATIVE = {"x86_64": "linux-x64", "aarch64": "linux-aarch64"}


def stand_in_command(folder: Path) -> tuple[str, ...]:
    """What starts it; request and records follow."""
    return ("/bin/sh", str(folder / "run.sh"))


def stand_in_folder() -> Path:
    """The built stand-in; FinetDeployError when nobody built it from these sources."""
    folder = _cached()
    if not (folder / "run.sh").is_file():
        raise FinetDeployError(
            "the app was not built for this machine", do="finet-deploy app build --stand-in"
        )
    return folder


def build_stand_in(*, force: bool = False, progress: Callable[[str], None] = print) -> Path:
    """Compile core, ONNX Runtime's engine and a `main` for this machine into the cache, unless they are there.

    Raises FinetDeployError for a missing tool or library, or a machine for which ONNX Runtime has no library.
    """
    folder = _cached()
    if (folder / "run.sh").is_file() and not force:
        progress(f"{folder}: up to date")
        return folder
    with temporary_directory_beside(folder) as scratch:
        _build(scratch, progress)
        replace_directory(scratch, folder)
    return folder


def _build(folder: Path, progress: Callable[[str], None]) -> None:
    sources = require_sources()
    library = next(item for item in libraries("app") if item.name == LIBRARY)
    jar = fetch([library], progress)[LIBRARY]
    machine = NATIVE.get(platform.machine())
    if machine is None or platform.system() != "Linux":
        found = f"{platform.system()} on {platform.machine()}"
        raise FinetDeployError(f"ONNX Runtime's jar has no library for {found}", do="use Linux")
    entries = zip_entries(jar.read_bytes())
    classes = {name: Entry(data) for name, data in entries.items() if name.endswith(".class")}
    (folder / "onnxruntime.jar").write_bytes(pack(classes))
    (folder / "native").mkdir()
    for name, data in entries.items():
        if name.startswith(f"ai/onnxruntime/native/{machine}/") and name.endswith(".so"):
            (folder / "native" / name.rsplit("/", 1)[-1]).write_bytes(data)
    progress("compile the app for this machine's Java")
    compiled = folder / "classes"
    java = [path for path in stand_in_sources(sources) if path.suffix == ".java"]
    compile_java(java, [folder / "onnxruntime.jar"], compiled)
    shutil.copytree(sources / "core" / "src" / "main" / "resources", compiled, dirs_exist_ok=True)
    class_jar(compiled, folder / "app.jar")
    shutil.rmtree(compiled)
    shutil.copyfile(sources / "jvm" / "run.sh", folder / "run.sh")
    (folder / "run.sh").chmod(0o755)


def _cached() -> Path:
    sources = require_sources()
    key = source_key(sources, stand_in_sources(sources), platform.machine())
    return cache_folder() / "app" / f"stand-in-{key[:16]}"
