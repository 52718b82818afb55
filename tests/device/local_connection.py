"""A `Connection` over this machine's own `sh`: a pretended phone in a temporary folder, with /sys and /proc to order.

Commands really run, detached jobs really detach and are really killed; only the places are moved: `/data/local/tmp`,
`/sys/devices`, and the files of /proc that a test writes lie below the folder. `getprop`, `dumpsys` and `settings` are
scripts that print files. A test changes the phone's state by rewriting a file, and orders faults with `fault`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from finet_deploy.devices.adb.connection import RemoteStat, ShellResult, quote
from finet_deploy.devices.adb.errors import PhoneGone, PhoneProtocolError, PhoneTimeout, refusal

ROOT = Path(__file__).parents[2]
TEMPORARY = "/data/local/tmp"
CPUS = sorted(os.sched_getaffinity(0))
LITTLE, BIG = CPUS[0], CPUS[-1]

PROPERTIES = {
    "ro.product.manufacturer": "Example",
    "ro.product.model": "Phone \"1\" $(touch hacked) 'q'\nsecond line [x]: [y",
    "ro.product.device": "example",
    "ro.soc.manufacturer": "QTI",
    "ro.soc.model": "SM8150",
    "ro.build.version.release": "14",
    "ro.build.version.sdk": "34",
    "ro.build.fingerprint": "example/phone:14/1:user/release-keys",
    "ro.product.cpu.abi": "arm64-v8a",
    "sys.boot_completed": "1",
}
BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  status: 5
  level: {level}
  temperature: 274
"""
THERMAL = """IsStatusOverride: false
Thermal Status: {status}
Cached temperatures:
\tTemperature{{mValue=99.0, mType=3, mName=stale, mStatus=0}}
HAL Ready: true
Current temperatures from HAL:
\tTemperature{{mValue={cpu}, mType=0, mName=AP, mStatus=0}}
\tTemperature{{mValue={skin}, mType=3, mName=SKIN, mStatus=0}}
Current cooling devices from HAL:
"""
SCRIPTS = {
    "getprop": 'if [ $# = 0 ]; then cat {root}/properties; else cat "{root}/property.$1" 2>/dev/null || echo; fi',
    "dumpsys": 'if [ -e {root}/slow ]; then sleep 1; fi; cat "{root}/dumpsys.$1" 2>/dev/null || '
    'echo "Can\'t find service: $1"',
    "settings": "cat {root}/settings.$3",
}


class LocalConnection:
    """See `finet_deploy.devices.adb.connection.Connection`. `folder` is the pretended phone's root."""

    def __init__(self, folder: Path, name: str = "local-1") -> None:
        self.name, self.root = name, folder
        self.faults: list[tuple[re.Pattern[str], Callable[[str], None]]] = []
        self.commands: list[str] = []
        self.pushed: list[str] = []
        self.said: list[str] = []  # what a device over this connection had to say
        self.reconnects = 0
        self.away = False
        self.environment: dict[str, str] = {}
        self.hashes: dict[str, str] = {}  # of files as they were sent -> as they lie here, with places moved
        if not folder.exists():
            self._create()

    def _create(self) -> None:
        for name in ("bin", "tmp", "proc/sys/kernel/random"):
            (self.root / name).mkdir(parents=True)
        for name, body in SCRIPTS.items():
            script = self.root / "bin" / name
            script.write_text("#!/bin/sh\n" + body.format(root=self.root) + "\n")
            script.chmod(0o755)
        self.properties(PROPERTIES)
        self.battery(80)
        self.heat(0)
        self.write("dumpsys.power", "  mWakefulness=Awake\n")
        self.write("settings.low_power", "0\n")
        self.write("proc/meminfo", "MemTotal:        5782400 kB\nMemAvailable:    3000000 kB\n")
        self.write("proc/loadavg", "0.50 0.40 0.30 1/900 12345\n")
        self.write("proc/cpuinfo", "".join(f"processor\t: {cpu}\n" for cpu in CPUS))
        self.boot("0a0a0a0a-0000-4000-8000-000000000001")
        listed = ",".join(map(str, CPUS))
        for name in ("possible", "present", "online"):
            self.cpu(name, listed)
        for cpu in CPUS:
            big = cpu == BIG
            self.cpu(f"cpu{cpu}/cpu_capacity", "1024" if big else "400")
            for name in ("cpuinfo_max_freq", "scaling_max_freq", "scaling_cur_freq"):
                self.cpu(f"cpu{cpu}/cpufreq/{name}", "2800000" if big else "1800000")
            self.cpu(f"cpu{cpu}/cpufreq/scaling_governor", "schedutil")
            self.cpu(f"cpu{cpu}/cpufreq/stats/time_in_state", "300000 100\n1800000 200")

    def write(self, name: str, text: str | bytes) -> None:
        """A file below the root."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape"))

    def properties(self, values: dict[str, str]) -> None:
        """All properties of the phone."""
        self.write("properties", "".join(f"[{name}]: [{value}]\n" for name, value in values.items()))
        for name, value in values.items():
            self.write(f"property.{name}", value + "\n")

    def battery(self, level: int) -> None:
        """Its charge in percent."""
        self.write("dumpsys.battery", BATTERY.format(level=level))

    def heat(self, status: int, *, cpu: float = 40.0, skin: float = 30.0) -> None:
        """Thermal status and degrees Celsius."""
        self.write("dumpsys.thermalservice", THERMAL.format(status=status, cpu=cpu, skin=skin))

    def cpu(self, name: str, text: str) -> None:
        """A file below /sys/devices/system/cpu."""
        self.write(f"sys/devices/system/cpu/{name}", text + "\n")

    def boot(self, boot_id: str, uptime: float | None = None) -> None:
        """Another boot of the phone: its id; without `uptime` the files tell a day more."""
        self.write("proc/sys/kernel/random/boot_id", boot_id + "\n")
        self.write("proc/uptime", f"{time.monotonic() if uptime is None else uptime:.2f} 1.00\n")

    def fault(self, pattern: str, action: Callable[[str], None], times: int = 1) -> None:
        """Before each of the next `times` calls whose text matches, do `action`."""
        self.faults += [(re.compile(pattern), action)] * times

    def gone(self, what: str = "") -> None:
        """The action of a link that is cut."""
        raise PhoneGone(self.name, "the link was cut")

    def silent(self, what: str = "") -> None:
        """The action of a phone that does not answer."""
        raise PhoneTimeout(self.name, "no answer")

    def _strike(self, text: str) -> None:
        if self.away:
            self.gone()
        for fault in self.faults:
            if fault[0].search(text):
                self.faults.remove(fault)
                fault[1](text)
                return

    def local(self, remote: str) -> Path:
        """Where a file of the phone lies here."""
        return Path(self.moved(remote))

    def moved(self, text: str) -> str:
        """Text with the phone's places moved below the root."""
        text = text.replace(TEMPORARY, str(self.root / "tmp"))
        text = text.replace("/sys/devices", str(self.root / "sys/devices"))
        text = re.sub("[0-9a-f]{64}", lambda found: self.hashes.get(found[0], found[0]), text)
        files = "meminfo|loadavg|cpuinfo|uptime|sys/kernel/random/boot_id"
        return re.sub(f"/proc/({files})", lambda found: f"{self.root}/proc/{found[1]}", text)

    def features(self) -> frozenset[str]:
        return frozenset({"shell_v2", "stat_v2"})

    def shell(
        self, command: str, *, timeout: float = 30.0, idle: float | None = None, max_bytes: int = 16 << 20
    ) -> ShellResult:
        self.commands.append(command)
        self._strike(command)
        process = subprocess.Popen(
            ["/bin/sh", "-c", self.moved(command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            cwd=self.root,
            env={
                **os.environ,
                "PATH": f"{self.root}/bin:{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                **self.environment,
            },
        )
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            raise PhoneTimeout(self.name, f"no end within {timeout:g} s") from None
        if len(out) + len(err) > max_bytes:
            raise PhoneProtocolError(self.name, "endless output")
        status = process.returncode
        return ShellResult(out, err, status if status >= 0 else 128 - status)

    def push(
        self, local: Path, remote: str, *, mode: int = 0o644, progress: Callable[[int], None] | None = None
    ) -> None:
        self._strike(f"push {remote}")
        target = self.local(remote)
        target.parent.mkdir(parents=True, exist_ok=True)
        sent = data = local.read_bytes()
        if data.startswith(b"cd ") or target.name == "request.json":  # they name places too
            data = self.moved(data.decode()).encode()
            self.hashes[hashlib.sha256(sent).hexdigest()] = hashlib.sha256(data).hexdigest()
        target.write_bytes(data)
        target.chmod(mode)
        self.pushed.append(remote)
        if progress is not None:
            progress(len(data))

    def pull(
        self,
        remote: str,
        local: Path,
        *,
        max_bytes: int,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._strike(f"pull {remote}")
        source = self.local(remote)
        if not source.is_file():
            raise refusal(self.name, f"pull {remote}", "open failed: No such file or directory")
        if source.stat().st_size > max_bytes:
            raise PhoneProtocolError(self.name, f"more than {max_bytes} bytes")
        shutil.copyfile(source, local)

    def stat(self, remote: str) -> RemoteStat | None:
        self._strike(f"stat {remote}")
        try:
            found = self.local(remote).stat()
        except OSError:
            return None
        return RemoteStat(found.st_mode, found.st_size, int(found.st_mtime))

    def list(self, remote: str) -> dict[str, RemoteStat]:
        self._strike(f"list {remote}")
        folder = self.local(remote)
        if not folder.is_dir():
            return {}
        return {
            path.name: RemoteStat(path.stat().st_mode, path.stat().st_size, int(path.stat().st_mtime))
            for path in folder.iterdir()
        }

    def reconnect(self) -> None:
        self.reconnects += 1
        self._strike("reconnect")

    def close(self) -> None:
        pass


def local_runner(folder: Path) -> Path:
    """A runner's folder: `run.sh` starts the real worker around a pretended runtime (`android_runner.py`)."""
    (folder / "bin").mkdir(parents=True)
    command = f"exec {quote(sys.executable)} -m tests.device.android_runner"
    (folder / "run.sh").write_text(f'#!/bin/sh\n{command} "$@"\n')
    (folder / "bin" / "it's $(a) file").write_text("a name with quotes\n")
    return folder
