"""What the runner is built for, and from which releases of the runtimes. Pure data."""

from __future__ import annotations

import platform
from dataclasses import dataclass

from finet_deploy.errors import FinetDeployError, UsageError, suggest

__all__ = ["NATIVE_RUNTIMES", "TARGETS", "WHEELS", "Target", "Wheel", "host_target", "target"]

# Runtimes that the native runner has; PyTorch Mobile exists in Python only.
NATIVE_RUNTIMES = ("executorch", "onnxruntime")


@dataclass(frozen=True)
class Target:
    """An architecture. `page`: every segment of every file is aligned to it (phones have 4, 16 or 64 KiB pages)."""

    name: str
    pip_platform: str
    compiler: str
    compiler_package: str
    machine: str  # ELF e_machine
    page: int


TARGETS = {
    "aarch64": Target(
        "aarch64",
        "manylinux_2_28_aarch64",
        "aarch64-linux-gnu-g++",
        "g++-aarch64-linux-gnu",
        "EM_AARCH64",
        65536,
    ),
    "x86_64": Target("x86_64", "manylinux_2_28_x86_64", "g++", "g++", "EM_X86_64", 4096),
}


@dataclass(frozen=True)
class Wheel:
    """A release on PyPI, by the SHA-256 of its wheel for each target. The C++ libraries in it are the same for
    every Python; the one for 3.11 is taken, whatever Python runs this."""

    distribution: str
    version: str
    sha256: dict[str, str]


WHEELS = (
    Wheel(
        "executorch",
        "1.5.1",
        {
            "aarch64": "8ee02348a3ea80ddf770822911ebf78da616b73afce0fbaaa79f23311c88c66a",
            "x86_64": "274c28c2fe2b76acb03f9fa381537425c40e0098dcf886baf6d97a1a55ffe300",
        },
    ),
    Wheel(
        "onnxruntime",
        "1.31.1",
        {
            "aarch64": "da05378364c44d4407e463982d2bf8d5e4cfea873283757e48beeb41df97b7f3",
            "x86_64": "5752bd508126ae7c49894d3b9d2e83f0c3d487319246d04c444b393308d7ad7f",
        },
    ),
)


def target(name: str) -> Target:
    """The target of this name; UsageError for an unknown one."""
    if name not in TARGETS:
        advice = suggest(name, TARGETS) or f"use {', '.join(TARGETS)}"
        raise UsageError(f"unknown target {name!r}", do=advice)
    return TARGETS[name]


def host_target() -> str:
    """The target that this machine runs; FinetDeployError when there is none."""
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(platform.machine().lower(), platform.machine())
    if machine not in TARGETS or platform.system() != "Linux":
        raise FinetDeployError(
            f"there is no native runner for {platform.system()} on {platform.machine()}",
            do="measure with the Python runner",
        )
    return machine
