"""The runtimes' releases for a target: fetched by pip, checked by hash, kept in the cache."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from finet_deploy.errors import FinetDeployError
from finet_deploy.files import explain_os_error, sha256_file
from finet_deploy.runner.folder import cache_folder
from finet_deploy.runner.targets import Target, Wheel

__all__ = ["fetch_wheel", "unpack"]

PYTHON_VERSION = "3.11"
TIMEOUT_SECONDS = 1800.0
MAX_UNPACKED_BYTES = 1 << 30


def fetch_wheel(wheel: Wheel, target: Target) -> Path:
    """The wheel's file, downloaded unless the cache has it. FinetDeployError with pip's own words."""
    wanted = wheel.sha256[target.name]
    folder = cache_folder() / "wheels"
    kept = folder / f"{wheel.distribution}-{wheel.version}-{target.name}-{wanted[:16]}.whl"
    if kept.is_file() and sha256_file(kept) == wanted:
        return kept
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            os.replace(_download(wheel, target, Path(scratch)), kept)
    except OSError as error:
        raise explain_os_error(error, "keep a wheel", folder) from error
    return kept


def _download(wheel: Wheel, target: Target, folder: Path) -> Path:
    name = f"{wheel.distribution}=={wheel.version}"
    (folder / "requirements.txt").write_text(f"{name} --hash=sha256:{wheel.sha256[target.name]}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    command += ["--platform", target.pip_platform, "--python-version", PYTHON_VERSION, "--require-hashes"]
    command += ["-r", str(folder / "requirements.txt"), "-d", str(folder)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        do = "try again with a faster network"
        raise FinetDeployError(f"pip did not fetch {name} in time", do=do) from error
    found = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(found) != 1:
        last = "".join(done.stderr.strip().splitlines()[-1:])
        raise FinetDeployError(
            f"pip cannot fetch {name} for {target.name}: {last[:300] or 'no word from pip'}",
            do="check that this Python has pip and that the package index answers",
        )
    return found[0]


def unpack(wheel: Path, folder: Path, prefixes: tuple[str, ...]) -> None:
    """Files of `wheel` whose names start with one of `prefixes`, below `folder`."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = [item for item in archive.infolist() if item.filename.startswith(prefixes)]
            if sum(item.file_size for item in members) > MAX_UNPACKED_BYTES:
                raise FinetDeployError("wheel unpacks to over 1 GiB", where=str(wheel), do="check it")
            for item in members:
                archive.extract(item, folder)  # drops '..' and absolute parts itself
    except (zipfile.BadZipFile, OSError) as error:
        raise FinetDeployError(
            f"cannot unpack: {error}", where=str(wheel), do="delete it, try again"
        ) from error
