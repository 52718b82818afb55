"""What this machine is and what it is doing. Every probe is optional: what cannot be read is `None` with the reason."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from finet_deploy.bench.protocol import DeviceInfo, DeviceState, Reading

__all__ = ["affinity_cpus", "host_info", "host_state", "os_threads", "peak_rss_mib", "reading"]

T = TypeVar("T")
ANDROID_ONLY = "Android's alone"
ROOT = Path("/")


def reading(probe: Callable[[], T]) -> Reading[T]:
    """What `probe` returns, or the reason why it failed."""
    try:
        return Reading(value=probe())
    except OSError as error:
        return Reading(reason=f"{error.strerror}: {error.filename}" if error.filename else str(error))
    except (ValueError, IndexError, AttributeError, UnicodeDecodeError) as error:
        return Reading(reason=str(error) or type(error).__name__)


def host_info(root: Path = ROOT) -> DeviceInfo:
    """What the host is. `root` is where `/proc` and `/sys` are looked for."""
    return DeviceInfo(
        name="host",
        kind="host",
        emulated=False,
        cpu_model=reading(lambda: _cpuinfo(root, "model name")[0]),
        cpu_count=len(affinity_cpus().value or ()) or os.cpu_count() or 1,
        machine=reading(platform.machine),
        operating_system=reading(lambda: f"{platform.system()} {platform.release()}"),
        memory_mib=reading(lambda: _meminfo_mib(root, "MemTotal")),
    )


def host_state(root: Path = ROOT) -> DeviceState:
    """What the host is doing now."""
    supplies = root / "sys/class/power_supply"
    return DeviceState(
        load_average_1min=reading(lambda: float(_text(root / "proc/loadavg").split()[0])),
        governor=reading(lambda: _governors(root)),
        frequencies_mhz=reading(lambda: _frequencies(root)),
        memory_available_mib=reading(lambda: _meminfo_mib(root, "MemAvailable")),
        temperatures_celsius=reading(lambda: _temperatures(root)),
        battery_percent=reading(lambda: float(_text(_battery(supplies, "*/capacity")))),
        battery_charging=reading(lambda: _text(_battery(supplies, "BAT*/status")) in ("Charging", "Full")),
        thermal_status=Reading(reason=ANDROID_ONLY),
        thermal_headroom=Reading(reason=ANDROID_ONLY),
        sustained_performance=Reading(reason=ANDROID_ONLY),
    )


def affinity_cpus() -> Reading[tuple[int, ...]]:
    """The CPUs on which this process may run, as the kernel tells."""
    return reading(lambda: tuple(sorted(os.sched_getaffinity(0))))


def peak_rss_mib() -> Reading[float]:
    """The largest resident set of this process so far.

    `VmHWM` where there is one: `ru_maxrss` of a fresh process on Linux starts at its parent's.
    """
    if sys.platform == "linux":
        return reading(lambda: int(_status("VmHWM").split()[0]) / 1024)
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return reading(lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)


def os_threads() -> Reading[int]:
    """Threads of this process, as the kernel counts them."""
    return reading(lambda: int(_status("Threads")))


def _text(path: Path) -> str:
    with path.open("rb") as stream:
        return stream.read(1 << 20).decode("utf-8", "replace").strip()


def _battery(folder: Path, pattern: str) -> Path:
    found = sorted(folder.glob(pattern))
    if not found:
        raise ValueError("no battery")
    return found[0]


def _fields(text: str, name: str) -> list[str]:
    pairs = (line.partition(":") for line in text.splitlines())
    found = [value.strip() for key, _, value in pairs if key.strip() == name]
    if not found:
        raise ValueError(f"no field {name!r}")
    return found


def _cpuinfo(root: Path, name: str) -> list[str]:
    return _fields(_text(root / "proc/cpuinfo"), name)


def _meminfo_mib(root: Path, name: str) -> int:
    return int(_fields(_text(root / "proc/meminfo"), name)[0].split()[0]) // 1024


def _status(name: str) -> str:
    return _fields(_text(ROOT / "proc/self/status"), name)[0]


def _governors(root: Path) -> str:
    files = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_governor"))
    if not files:
        raise ValueError("no cpufreq: the frequency is set outside this system")
    return ", ".join(sorted({_text(file) for file in files}))


def _frequencies(root: Path) -> tuple[float, ...]:
    files = sorted((root / "sys/devices/system/cpu").glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))
    if files:
        return tuple(int(_text(file)) / 1000 for file in files)
    return tuple(float(value) for value in _cpuinfo(root, "cpu MHz"))


def _temperatures(root: Path) -> dict[str, float]:
    zones = sorted((root / "sys/class/thermal").glob("thermal_zone*"))
    if not zones:
        raise ValueError("no thermal zones")
    return {f"{zone.name} {_text(zone / 'type')}": int(_text(zone / "temp")) / 1000 for zone in zones}
