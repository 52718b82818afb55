"""A phone's files in a folder of the host, and how they change while it runs.

The folder has `root/` (the phone's read-only system), `proc/` (bound over the real /proc) and `data/` (writable). All
access goes through a descriptor of the folder, so that it works after the simulator has changed its root.
"""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from pathlib import Path
from typing import Any

from tests.device.profiles import Profile, render

__all__ = ["Personality"]

CPU = "root/sys/devices/system/cpu"
UPTIME_AT_START_S = 200_000.0
OVERHEATED_C = 85.0


class Personality:
    """What the phone says about itself. Several processes may hold one on the same folder."""

    def __init__(self, folder: Path, profile: Profile) -> None:
        self.profile = profile
        self.folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        self.booted = time.time() - UPTIME_AT_START_S
        self.ticked = time.monotonic()
        self.busy = False

    def close(self) -> None:
        os.close(self.folder)

    def write(self, path: str, data: bytes | str) -> None:
        """Replace a file's content: in place (a bound file keeps its inode), so a reader may see half of it."""
        raw = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=self.folder)
        with open(fd, "wb", buffering=0) as file:
            file.write(raw)

    def read(self, path: str) -> str:
        fd = os.open(path, os.O_RDONLY, dir_fd=self.folder)
        with open(fd, "rb") as file:
            return file.read().decode("utf-8", "surrogateescape")

    def remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path, dir_fd=self.folder)

    def refresh(self) -> None:
        """Write everything that a state stands behind."""
        self.write("proc/boot_id", f"{uuid.uuid4()}\n")
        self.write("proc/stat", render.stat_text(self.profile, self.booted))
        self.write("proc/meminfo", render.memory_text(self.profile.memory_kb, self.profile.available_kb))
        self.write("proc/version", render.version_text(self.profile))
        self.set_online(self.profile.cores)
        self.set_battery()
        self.set_heat(0.0, 0)
        self.set_power()
        self.set_load(0.5)
        self.tick()

    # what tests change

    def set_property(self, name: str, value: str | bytes | None) -> None:
        """Set (None: unset) a system property; any bytes but NUL are allowed in the value."""
        if "/" in name or name in ("", ".", ".."):
            raise ValueError(f"a property cannot be called {name!r}")
        if value is None:
            self.remove(f"root/personality/props/{name}")
        else:
            self.write(f"root/personality/props/{name}", value)

    def set_dumpsys(self, service: str, text: str | bytes | None) -> None:
        """What `dumpsys SERVICE` prints; None: there is no such service."""
        if text is None:
            self.remove(f"root/personality/dumpsys/{service}")
        else:
            self.write(f"root/personality/dumpsys/{service}", text)

    def set_battery(self, *, faked: bool = False, **changes: Any) -> None:
        """`dumpsys battery` with some values changed: `level=15`, `status=3`, `temperature=312` (0.1 °C)."""
        self.set_dumpsys("battery", render.battery_text({**self.profile.battery, **changes}, faked=faked))

    def set_power(self, *, awake: bool = True, saving: bool = False) -> None:
        self.set_dumpsys("power", render.power_text(awake=awake, saving=saving))
        self.write("root/personality/settings/global/low_power", f"{int(saving)}\n")

    def set_load(self, average: float) -> None:
        """/proc/loadavg; this machine's load does not show."""
        self.write("proc/loadavg", f"{average:.2f} {average:.2f} {average:.2f} 1/1234 5678\n")

    def set_heat(self, degrees: float, status: int) -> None:
        """All temperatures so many °C above those at rest, and the thermal status (0 none to 6 shutdown)."""
        if not self.profile.sensors:  # before Android 10 the service has no temperatures
            return
        hot = [
            (name, kind, value + degrees if 0 < value < 200 else value, status if kind == 3 else 0)
            for name, kind, value in self.profile.sensors
        ]
        self.set_dumpsys("thermalservice", render.thermal_text(hot, status))

    def cap_clocks(self, share: float) -> None:
        """Let no cluster run above the given share of its top clock."""
        for cluster in self.profile.clusters:
            top = cluster.frequencies[-1]
            allowed = [step for step in cluster.frequencies if step <= top * share] or [
                cluster.frequencies[0]
            ]
            self.write(f"{CPU}/cpufreq/policy{cluster.cores[0]}/scaling_max_freq", f"{allowed[-1]}\n")

    def overheat(self, celsius: float = OVERHEATED_C) -> None:
        """Severe: the hottest sensor at `celsius`, clocks capped to 60 %."""
        hottest = max((value for _, _, value in self.profile.sensors), default=celsius)
        self.set_heat(celsius - hottest, 3)
        self.cap_clocks(0.6)

    def cool(self) -> None:
        self.set_heat(0.0, 0)
        self.cap_clocks(1.0)

    def set_online(self, cores: list[int]) -> None:
        """Switch cores on and off; an offline core has no cpufreq folder."""
        offline = [core for core in self.profile.cores if core not in cores]
        self.write(f"{CPU}/online", render.cpu_list(cores) + "\n")
        self.write(f"{CPU}/offline", render.cpu_list(offline) + "\n")
        self.write("proc/cpuinfo", render.cpuinfo_text(self.profile, cores))
        for core in self.profile.cores:
            link = f"{CPU}/cpu{core}/cpufreq"
            self.write(f"{CPU}/cpu{core}/online", f"{int(core in cores)}\n")
            self.remove(link)
            if core in cores:
                policy = f"../cpufreq/policy{self.profile.cluster_of(core).cores[0]}"
                os.symlink(policy, link, dir_fd=self.folder)

    # what time changes

    def tick(self) -> None:
        """Uptime, and the time in each clock: idle at the lowest, `busy` at the highest that is allowed."""
        up = time.time() - self.booted
        self.write_over("proc/uptime", f"{up:.2f} {up * len(self.profile.cores) * 0.9:.2f}\n")
        now = time.monotonic()
        passed = int((now - self.ticked) * 100)
        if passed <= 0:
            return
        self.ticked += passed / 100
        for cluster in self.profile.clusters:
            folder = f"{CPU}/cpufreq/policy{cluster.cores[0]}"
            current = cluster.frequencies[0]
            if self.busy:
                with contextlib.suppress(ValueError):
                    current = int(self.read(f"{folder}/scaling_max_freq"))
            rows = [row.split() for row in self.read(f"{folder}/stats/time_in_state").splitlines()]
            text = "".join(
                f"{step} {int(ticks) + (passed if int(step) == current else 0)}\n" for step, ticks in rows
            )
            self.write_over(f"{folder}/stats/time_in_state", text)
            self.write_over(f"{folder}/scaling_cur_freq", f"{current}\n")

    def write_over(self, path: str, text: str) -> None:
        """Replace a short file that others read all the time: one write, cut to length only when it shrinks."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=self.folder)
        try:
            size = os.pwrite(fd, text.encode(), 0)
            if os.fstat(fd).st_size > size:
                os.ftruncate(fd, size)
        finally:
            os.close(fd)

    def reboot(self) -> None:
        """A new boot: id and time; not yet completed."""
        self.booted = time.time()
        self.write("proc/boot_id", f"{uuid.uuid4()}\n")
        self.write("proc/stat", render.stat_text(self.profile, self.booted))
        self.set_property("sys.boot_completed", None)
        self.cool()
        self.tick()
