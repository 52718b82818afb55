"""Install the built wheel as a stranger does: a fresh virtual environment, `pip install 'dist/*.whl[phone]'`.

`python -m tests.device.wheel_env` prints the environment's folder, in the user's cache. What the wheel says that it
needs is 6 GB, torch for CUDA almost all of it, and `make install` has just fetched the same from the same index: those
files are linked, and pip judges them, adds what is missing and installs the wheel. Run it before the tests: they
install nothing. `make wheel` makes the wheel.
"""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement

from finet_deploy.app.sources import packed_sources as packed_app_sources
from finet_deploy.files import sha256_bytes, sha256_file

__all__ = [
    "ROOT",
    "bare_machine",
    "built_wheel",
    "environment",
    "main",
    "masked_programs",
    "packed_sources",
    "why_no_environment",
    "why_no_wheel",
]

ROOT = Path(__file__).parents[2]
EXTRA = "phone"  # what a laptop needs that measures bundles made elsewhere
STAMP = "installed"
PREFIX = "wheel-"
# What a laptop with nothing but Python has not: compilers, binary tools, Android's tools, emulators.
TOOLS = (
    "adb",
    "fastboot",
    "cc",
    "c++",
    "c89*",
    "c99*",
    "gcc*",
    "g++*",
    "clang*",
    "*-linux-gnu-*",
    "qemu-*",
    "as",
    "ld",
    "ld.[!s]*",  # ld.so is the loader
)
HEADERS = ("/usr/include", "/usr/aarch64-linux-gnu")
# Over each program before `--` lies an empty file that may not be executed, over each folder an empty one.
MASK = """
while [ "$1" != -- ]; do
  if [ -d "$1" ]; then mount -t tmpfs none "$1"; else mount --bind /dev/null "$1"; fi || exit 125
  shift
done
shift
%s
exec "$@"
"""


def built_wheel() -> Path | None:
    """The wheel in `dist/`."""
    return next(iter(sorted((ROOT / "dist").glob("finet_deploy-*.whl"))), None)


def packed_sources() -> list[Path]:
    """All files of this tree that the wheel is made of, the built runners aside."""
    runners = ROOT / "finet_deploy/runner/data"
    app = packed_app_sources(ROOT / "android_app")
    return app + [
        path
        for folder in ("finet_deploy", "android_app/native")
        for path in sorted((ROOT / folder).rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and runners not in path.parents
    ]


def why_no_wheel() -> str | None:
    """Why there is no wheel of this tree, or None."""
    wheel = built_wheel()
    if wheel is None:
        return "no wheel in dist/: make wheel"
    newer = [path for path in packed_sources() if path.stat().st_mtime > wheel.stat().st_mtime]
    if newer:
        return f"the wheel in dist/ is older than {newer[0].relative_to(ROOT)}: make wheel"
    return None


def cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "finet-deploy-tests"


def metadata(wheel: Path) -> list[str]:
    """The lines of what the wheel says about itself, its description left out."""
    with zipfile.ZipFile(wheel) as archive:
        about = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return archive.read(about).decode().partition("\n\n")[0].splitlines()


def environment(wheel: Path) -> Path:
    """The virtual environment for wheels that need what this one needs, there or not."""
    lines = [line for line in metadata(wheel) if line.startswith(("Requires-", "Provides-"))]
    return cache() / f"{PREFIX}{sha256_bytes(repr([sys.version, EXTRA, *lines]).encode())[:16]}"


def is_installed(wheel: Path) -> bool:
    stamp = environment(wheel) / STAMP
    return stamp.is_file() and stamp.read_text() == sha256_file(wheel)


def why_no_environment() -> str | None:
    """Why the wheel is not installed anywhere, or None."""
    missing, wheel = why_no_wheel(), built_wheel()
    if missing is not None or wheel is None:
        return missing
    return None if is_installed(wheel) else "the wheel is not installed: python -m tests.device.wheel_env"


def masked_programs() -> list[Path]:
    """Programs on this machine that the bare one must not have: files, where links lead."""
    folders = {Path(name).resolve() for name in (*os.get_exec_path(), "/usr/bin", "/usr/local/bin")}
    found = {path.resolve() for folder in folders for pattern in TOOLS for path in folder.glob(pattern)}
    return sorted(path for path in found if path.is_file())


def bare_machine(command: list[str], *, hidden: list[Path], mounts: str = "") -> list[str]:
    """`command` in a mount namespace of its own, without `masked_programs`, headers and the folders `hidden`.

    mounts: shell commands that come after the masks. No root is needed; the network is this machine's.
    """
    folders = [path for path in (*map(Path, HEADERS), *hidden) if path.is_dir()]
    masks = [str(path) for path in (*masked_programs(), *folders)]
    script = MASK % (f"{mounts} || exit 125" if mounts else "")
    return [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        script,
        "sh",
        *masks,
        "--",
        *command,
    ]


def needed(
    lines: Iterable[str], extras: Iterable[str], found: dict[str, importlib.metadata.Distribution]
) -> None:
    """Add to `found` the packages of this environment that requirements ask for, and what those ask for in turn."""
    for requirement in map(Requirement, lines):
        marker = requirement.marker
        if marker is not None and not any(marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        try:
            package = importlib.metadata.distribution(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            continue  # pip will fetch it
        key = f"{requirement.name.lower()} {sorted(requirement.extras)}"
        if key not in found:
            found[key] = package
            needed(package.requires or (), requirement.extras, found)


def link(packages: Iterable[importlib.metadata.Distribution], target: Path) -> None:
    """Every file of the packages, by a link where the file system allows it, without programs and compiled code."""
    for package in packages:
        for file in package.files or ():
            place = target / file
            if ".." in file.parts or "__pycache__" in file.parts or place.exists():
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(file.locate(), place)
            except OSError:  # another file system
                shutil.copy2(file.locate(), place)


def install(wheel: Path, target: Path) -> None:
    """With pip, from the package index; into an environment that has another build of this wheel, only the wheel."""
    pip = [target / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-compile"]
    update = (target / STAMP).is_file()
    (target / STAMP).unlink(missing_ok=True)
    if update:
        pip += ["--force-reinstall", "--no-deps"]
    else:
        for old in cache().glob(f"{PREFIX}*"):
            shutil.rmtree(old)
        subprocess.run([sys.executable, "-m", "venv", target], check=True)
        found: dict[str, importlib.metadata.Distribution] = {}
        prefix = "Requires-Dist: "
        lines = [line.removeprefix(prefix) for line in metadata(wheel) if line.startswith(prefix)]
        needed(lines, [EXTRA], found)
        link(found.values(), next(target.glob("lib/python3*/site-packages")))
    subprocess.run([*pip, f"{wheel}[{EXTRA}]"], check=True, stdout=sys.stderr, cwd=target)
    (target / STAMP).write_text(sha256_file(wheel))


def main() -> None:
    """Install once; afterwards only print where."""
    missing, wheel = why_no_wheel(), built_wheel()
    if missing is not None or wheel is None:
        sys.exit(missing)
    if not is_installed(wheel):
        install(wheel, environment(wheel))
    print(environment(wheel))


if __name__ == "__main__":
    main()
