"""Compiler calls: the runner and its ExecuTorch part, for one target."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from finet_deploy import __version__
from finet_deploy.errors import FinetDeployError
from finet_deploy.runner.targets import Target

__all__ = ["EXECUTORCH_LIBRARIES", "RULES", "Compiler"]

TIMEOUT_SECONDS = 900.0
COMMON = ("-std=c++17", "-O2", "-Wall", "-Wextra", "-fstack-protector-strong")
# -s: no symbols; the paths of this machine go with them.
LINK = ("-s", "-Wl,-z,now", "-Wl,-z,relro", "-Wl,-z,noexecstack")
# Part of the ABI of the wheel's libraries (its CMake package says so).
EXECUTORCH_DEFINES = ("C10_USING_CUSTOM_GENERATED_MACROS", "ET_EVENT_TRACER_ENABLED", "ET_USE_THREADPOOL")
# Some only register kernels and backends: nothing refers to them, and without --no-as-needed they fall away.
EXECUTORCH_LIBRARIES = (
    "executorch_backend_xnnpack",
    "executorch_kernels_optimized",
    "executorch_kernels_quantized",
    "executorch_threadpool",
    "executorch",
)

CLOCK_SOURCE = "clock.cpp"

RULES = (COMMON, LINK, EXECUTORCH_DEFINES, EXECUTORCH_LIBRARIES)  # a folder is told from others by them


class Compiler:
    """The compiler of a target. Raises FinetDeployError, naming the package, when it is not installed."""

    def __init__(self, target: Target) -> None:
        self._target = target
        path = shutil.which(target.compiler)
        if path is None:
            do = f"apt-get install {target.compiler_package} nlohmann-json3-dev"
            raise FinetDeployError(f"{target.compiler} is not installed", do=do)
        self._path = path
        self.version = self._run(["--version"]).splitlines()[0]

    def library(self, name: str) -> Path:
        """Where the target's system library of this name is. FinetDeployError when the compiler has none."""
        found = Path(self._run([f"-print-file-name={name}"]).strip())
        if not found.is_absolute() or not found.is_file():
            do = f"reinstall {self._target.compiler_package}"
            raise FinetDeployError(f"the compiler has no {name} for {self._target.name}", do=do)
        return found.resolve()

    def check_headers(self) -> None:
        """FinetDeployError when the JSON library is missing."""
        try:
            self._run(["-x", "c++", "-fsyntax-only", "-include", "nlohmann/json.hpp", "/dev/null"])
        except FinetDeployError as error:
            do = "apt-get install nlohmann-json3-dev"
            raise FinetDeployError("the JSON library nlohmann/json.hpp is not installed", do=do) from error

    def build_runner(self, sources: Path, out: Path, commit: str) -> None:
        """`bin/finet-runner`: everything but ExecuTorch. `commit` tells one build from another.

        One translation unit: the JSON library, which takes longer than our code, is read once.
        """
        own = ("session_executorch.cpp", CLOCK_SOURCE)  # libraries of their own
        files = sorted(file for file in sources.glob("*.cpp") if file.name not in own)
        runner = f"finet-deploy {__version__} native {self._target.name} {commit}"
        unit = "".join(f'#include "{file.resolve()}"\n' for file in files)
        arguments = [*COMMON, f'-DFINET_RUNNER="{runner}"', "-x", "c++", "-", "-o", str(out)]
        self._run([*arguments, *self._link(), "-ldl"], unit)

    def build_executorch(self, sources: Path, out: Path, executorch: Path, version: str) -> None:
        """`lib/libfinet_executorch.so`, against the wheel unpacked in `executorch`."""
        include = executorch / "include"
        c10 = include / "executorch" / "runtime" / "core" / "portable_type" / "c10"
        self._run(
            [
                *COMMON,
                "-fPIC",
                "-shared",
                *(f"-D{name}" for name in EXECUTORCH_DEFINES),
                f'-DFINET_EXECUTORCH_VERSION="{version}"',
                "-isystem",
                str(include),
                "-isystem",
                str(c10),
                str(sources / "session_executorch.cpp"),
                "-o",
                str(out),
                f"-Wl,-soname,{out.name}",
                f"-L{executorch / 'lib'}",
                "-Wl,--no-as-needed",
                *(f"-l{name}" for name in EXECUTORCH_LIBRARIES),
                *self._link(),
            ]
        )

    def build_clock(self, sources: Path, out: Path) -> None:
        """`lib/libfinet_clock.so`, which stands before the system's clock in a profiled visit."""
        self._run(
            [
                *COMMON,
                "-fPIC",
                "-shared",
                str(sources / CLOCK_SOURCE),
                "-o",
                str(out),
                f"-Wl,-soname,{out.name}",
                *self._link(),
                "-ldl",
            ]
        )

    def _link(self) -> list[str]:
        return [*LINK, f"-Wl,-z,max-page-size={self._target.page}"]

    def _run(self, arguments: Sequence[str], source: str = "") -> str:
        """What the compiler prints; source: what it reads from its standard input."""
        try:
            done = subprocess.run(
                [self._path, *arguments],
                input=source,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=TIMEOUT_SECONDS,
            )
        except (subprocess.TimeoutExpired, OSError) as error:
            raise FinetDeployError(
                f"{self._target.compiler} does not run: {error}", do="reinstall it"
            ) from error
        if done.returncode != 0:
            errors = [
                line for line in done.stderr.splitlines() if "error" in line
            ] or done.stderr.splitlines()
            raise FinetDeployError(
                f"{self._target.compiler} failed: {' | '.join(errors[:3])[:600]}",
                do=f"check that {self._target.compiler_package} and nlohmann-json3-dev are installed",
            )
        return done.stdout
