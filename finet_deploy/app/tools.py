"""Programs that the build calls: found, run without a shell, their words in our errors."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from finet_deploy.errors import FinetDeployError

__all__ = ["DEBIAN", "android_build_tools", "require", "run"]

TIMEOUT_SECONDS = 1800.0
_TELLING = re.compile(r"error|^warning", re.IGNORECASE)
# Program -> Debian's package.
DEBIAN = {
    "java": "openjdk-17-jdk-headless",
    "javac": "openjdk-17-jdk-headless",
    "keytool": "openjdk-17-jdk-headless",
    "mvn": "maven",
    "npm": "npm",
    "zipalign": "zipalign",
    "apksigner": "apksigner",
    "dexdump": "dexdump",
}


def android_build_tools() -> Path | None:
    """The newest `build-tools` folder below `$ANDROID_HOME`, if there is one."""
    home = os.environ.get("ANDROID_HOME")
    if not home:
        return None
    folders = [path for path in Path(home).glob("build-tools/*") if path.name[:1].isdigit()]
    return max(
        folders, key=lambda path: [int(part) for part in path.name.split(".") if part.isdigit()], default=None
    )


def require(name: str) -> str:
    """The path of a program; FinetDeployError, naming Debian's package, when it is not installed."""
    found = shutil.which(name)
    if found is None:
        do = f"apt-get install {DEBIAN[name]}" if name in DEBIAN else "install it"
        raise FinetDeployError(f"{name} is not installed", do=do)
    return found


def run(
    command: Sequence[str | Path],
    what: str,
    *,
    do: str = "see its words",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> str:
    """What the program printed. FinetDeployError with its last words when it fails or takes over half an hour.

    env: variables beside those of this process: passwords go this way, not through the command line.
    """
    words = [str(word) for word in command]
    try:
        done = subprocess.run(
            words,
            cwd=cwd,
            env={**os.environ, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=TIMEOUT_SECONDS,
        )
    except (subprocess.TimeoutExpired, OSError) as error:
        raise FinetDeployError(f"cannot {what}: {error}", where=words[0], do=do) from error
    if done.returncode != 0:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        first = next((at for at, line in enumerate(lines) if _TELLING.search(line)), max(0, len(lines) - 3))
        told = lines[first:]
        raise FinetDeployError(f"cannot {what}: {' | '.join(told[:3])[:900]}", where=words[0], do=do)
    return done.stdout
