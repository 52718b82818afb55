"""Running the aarch64 runner under qemu-user, with the CPU files of a phone in place of the host's.

QEMU looks below `-L FOLDER` first for every file that the guest opens. Without these files the runtimes read the
host's: ExecuTorch then chooses generic kernels or none, and ONNX Runtime 1.30 and newer crash. The files say which
core it is, `-cpu` which instructions there are: both must be set. Times under emulation say nothing about a phone.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from finet_deploy.errors import FinetDeployError, UsageError, suggest
from finet_deploy.runner.manifest import read_manifest

__all__ = ["CORES", "Core", "core", "emulated_command", "find_qemu", "write_profile"]

QEMU = "qemu-aarch64"
# Counts are compared between machines, so the emulator is one release. Its successors from 9.0 on have another
# plugin interface, and Debian's static builds have none.
QEMU_VERSION = "7.2"
CORE_COUNT = 8
ARMV8_0 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"
ARMV8_2 = f"{ARMV8_0} atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp"


@dataclass(frozen=True)
class Core:
    """A core type. part: of Arm's MIDR_EL1. qemu_cpu: the emulated model with the same instructions."""

    name: str
    part: int
    qemu_cpu: str
    features: str
    max_khz: int


CORES = {
    item.name: item
    for item in (
        Core("cortex-a53", 0xD03, "cortex-a53", ARMV8_0, 1_800_000),
        Core("cortex-a55", 0xD05, "cortex-a76", ARMV8_2, 1_800_000),
        Core("cortex-a72", 0xD08, "cortex-a72", ARMV8_0, 2_000_000),
        Core("cortex-a76", 0xD0B, "cortex-a76", ARMV8_2, 2_400_000),
        Core("cortex-a78", 0xD41, "cortex-a76", ARMV8_2, 2_400_000),
        Core("cortex-x1", 0xD44, "cortex-a76", ARMV8_2, 2_800_000),
    )
}


def core(name: str) -> Core:
    """The core of this name; UsageError for an unknown one."""
    if name not in CORES:
        advice = suggest(name, CORES) or f"use one of {', '.join(CORES)}"
        raise UsageError(f"unknown core {name!r}", do=advice)
    return CORES[name]


def find_qemu() -> tuple[str, str]:
    """The emulator's path and its version line. FinetDeployError when it is missing or another release."""
    path = shutil.which(QEMU)
    if path is None:
        raise FinetDeployError(f"{QEMU} is not installed", do="apt-get install qemu-user (Debian 12)")
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FinetDeployError(f"{QEMU} does not run: {error}", where=path, do="reinstall it") from error
    found = re.search(r"version (\d+\.\d+)[^\n]*", done.stdout)
    if found is None or found[1] != QEMU_VERSION:
        what = found[0] if found else "an unknown version"
        raise FinetDeployError(
            f"{QEMU} is {what}; counts are defined for {QEMU_VERSION}, with plugins",
            where=path,
            do="use Debian 12's qemu-user",
        )
    return path, found[0]


def write_profile(wanted: Core, folder: Path) -> None:
    """The files below `folder` that make a machine of eight equal cores, at rest and always the same."""
    cpus = range(CORE_COUNT)
    files = {
        "proc/cpuinfo": "\n".join(_cpuinfo(wanted, cpu) for cpu in cpus),
        "proc/loadavg": "0.00 0.00 0.00 1/100 100\n",
        "proc/meminfo": "MemTotal:        6144000 kB\nMemAvailable:    4096000 kB\n",
        "sys/devices/system/cpu/kernel_max": f"{CORE_COUNT - 1}\n",
    }
    for name in ("possible", "present", "online"):
        files[f"sys/devices/system/cpu/{name}"] = f"0-{CORE_COUNT - 1}\n"
    for cpu in cpus:
        base = f"sys/devices/system/cpu/cpu{cpu}"
        files[f"{base}/topology/physical_package_id"] = "0\n"
        for name in ("cluster_cpus_list", "core_siblings_list"):
            files[f"{base}/topology/{name}"] = f"0-{CORE_COUNT - 1}\n"
        files[f"{base}/cpufreq/cpuinfo_max_freq"] = f"{wanted.max_khz}\n"
        files[f"{base}/cpufreq/cpuinfo_min_freq"] = "300000\n"
        files[f"{base}/cpufreq/scaling_cur_freq"] = f"{wanted.max_khz}\n"
        files[f"{base}/cpufreq/scaling_governor"] = "performance\n"
        files[f"{base}/regs/identification/midr_el1"] = f"0x{0x411F0000 | wanted.part << 4:016x}\n"
    try:
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        for name in ("sys/class/thermal", "sys/class/power_supply"):
            (folder / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FinetDeployError(
            f"cannot write: {error.strerror}", where=str(folder), do="free some space"
        ) from error


def _cpuinfo(wanted: Core, cpu: int) -> str:
    lines = (
        ("processor", str(cpu)),
        ("BogoMIPS", "38.40"),
        ("Features", wanted.features),
        ("CPU implementer", "0x41"),
        ("CPU architecture", "8"),
        ("CPU variant", "0x1"),
        ("CPU part", f"0x{wanted.part:03x}"),
        ("CPU revision", "0"),
    )
    return "".join(f"{name}\t: {value}\n" for name, value in lines)


def emulated_command(
    folder: Path,
    wanted: Core,
    profile: Path,
    *,
    qemu: str = QEMU,
    plugin: str | None = None,
    seen_as: Path | None = None,
    preload: str | None = None,
) -> list[str]:
    """What starts the aarch64 runner of `folder` under emulation; request and records follow.

    The loader is started itself: qemu-user cannot follow `run.sh` into a program of another architecture.
    seen_as: the folder's name in the command, where it is not `folder`: the length of a path moves the guest's
    stack, and with it a count. preload: a library of the folder that comes before all others.
    """
    shown = folder if seen_as is None else seen_as
    options = [qemu, "-L", str(profile), "-cpu", wanted.qemu_cpu]
    if plugin is not None:
        options += ["-plugin", plugin]
    words = [word if word.startswith("-") else str(shown / word) for word in read_manifest(folder).command]
    if preload is not None:
        words[-1:-1] = ["--preload", str(shown / "lib" / preload)]
    return [*options, *words]
