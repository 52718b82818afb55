"""What a phone prints about itself, parsed: pure functions from text to values, `ValueError` with the reason.

Formats are those that other projects' fixtures show (Android 7 to 16); vendors add lines of their own, so every parser
takes what it knows and leaves the rest. Numbers have bounds: a phone may print anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = [
    "Battery",
    "Thermal",
    "cpu_files",
    "cpu_list",
    "cpu_parts",
    "memory_mib",
    "parse_battery",
    "parse_thermal",
    "power_save",
    "properties",
    "required",
    "residency",
    "soc_name",
    "time_in_state",
    "wakefulness",
]

MAX_CPUS = 1024
# android.os.Temperature: types that are temperatures; 6 to 8 are voltage, current and charge of a limiter.
TEMPERATURE_TYPES = {0: "cpu", 1: "gpu", 2: "battery", 3: "skin", 4: "usb", 5: "power amplifier"}
PLAUSIBLE_CELSIUS = (-40.0, 150.0)
MAX_THERMAL_STATUS = 6
MAX_SENSORS = 64
BATTERY_CHARGING, BATTERY_FULL = 2, 5  # android.os.BatteryManager

HEX = r"0x[0-9a-fA-F]{1,4}"
_PROPERTY = re.compile(r"\[([^\]]*)\]: \[(.*)", re.DOTALL)
_TEMPERATURE = re.compile(
    r"Temperature\{mValue=(-?\d{1,6}(?:\.\d{1,9})?), mType=(-?\d{1,4}), mName=([^\n]*?), mStatus=(-?\d{1,4})\}"
)


def properties(text: str) -> dict[str, str]:
    """`getprop`: lines `[name]: [value]`. A value may hold newlines and brackets.

    An entry goes on until a line ends with `]`, and over following lines that do not begin an entry.
    """
    found: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in text.rstrip("\n").split("\n"):
        match = _PROPERTY.fullmatch(line)
        closed = current is None or current[-1].endswith("]")
        if match and closed:
            current = found[match[1]] = [match[2]]
        elif current is not None:
            current.append(line)
    return {name: "\n".join(lines).removesuffix("]") for name, lines in found.items()}


def required(values: Mapping[str, str], *names: str) -> str:
    """The first of these properties that has a value. ValueError when none has."""
    for name in names:
        if values.get(name, "").strip():
            return values[name].strip()
    raise ValueError(f"property {' or '.join(names)} is not set")


def soc_name(values: Mapping[str, str]) -> str:
    """Maker and part of the chip as the phone spells them: by Android 12's properties, else by vendors' older ones."""
    model = values.get("ro.soc.model", "").strip()
    if model:
        return f"{values.get('ro.soc.manufacturer', '').strip()} {model}".strip()
    return required(
        values, "ro.hardware.chipname", "ro.chipname", "ro.mediatek.platform", "ro.board.platform"
    )


def memory_mib(text: str, field: str) -> int:
    """A field of /proc/meminfo, in MiB."""
    match = re.search(rf"^{re.escape(field)}:\s+(\d{{1,15}}) kB\s*$", text, re.MULTILINE)
    if match is None:
        raise ValueError(f"no {field} in /proc/meminfo")
    return int(match[1]) // 1024


@dataclass(frozen=True)
class Battery:
    """`dumpsys battery`. Charge in percent, temperature in degrees Celsius; None where the phone does not say."""

    percent: float
    on_power: bool
    celsius: float | None
    faked: bool


def parse_battery(text: str) -> Battery:
    """Vendors add lines with similar names: the first `level: N` of the service's own block counts."""
    if "Current Battery Service state" not in text:
        raise ValueError(_first_line(text))
    level = re.search(r"^\s+level: (\d{1,3})\s*$", text, re.MULTILINE)
    if level is None or int(level[1]) > 100:
        raise ValueError("the battery service tells no level")
    status = re.search(r"^\s+status: (\d)\s*$", text, re.MULTILINE)
    powered = re.findall(r"^\s+(?:AC|USB|Wireless|Dock) powered: (true|false)\s*$", text, re.MULTILINE)
    if not powered and status is None:
        raise ValueError("the battery service tells neither power nor status")
    charging = status is not None and int(status[1]) in (BATTERY_CHARGING, BATTERY_FULL)
    tenths = re.search(r"^\s+temperature: (-?\d{1,4})\s*$", text, re.MULTILINE)
    return Battery(
        percent=float(level[1]),
        on_power="true" in powered or (not powered and charging),
        celsius=int(tenths[1]) / 10 if tenths else None,
        faked="UPDATES STOPPED" in text,
    )


@dataclass(frozen=True)
class Thermal:
    """`dumpsys thermalservice`. status: 0 none, 1 light, 2 moderate, 3 severe, 4 critical, 5 emergency, 6 shutdown."""

    status: int
    celsius: dict[str, float]  # "type name" -> degrees, from the sensors themselves
    skin: float | None  # the hottest sensor under the case, the one that throttling goes by
    faked: bool


def parse_thermal(text: str) -> Thermal:
    """Android 10 and later. Cached temperatures are stale and are left out; 0.0 means that there is no sensor."""
    status = re.search(r"^\s*Thermal Status: (\d)\s*$", text, re.MULTILINE)
    if status is None or int(status[1]) > MAX_THERMAL_STATUS:
        raise ValueError(_first_line(text) if status is None else f"thermal status {status[1]} is not known")
    _, _, block = text.partition("Current temperatures from HAL:")
    block = block.partition("Current cooling devices")[0]
    celsius: dict[str, float] = {}
    skin: list[float] = []
    for value, kind, name, _ in _TEMPERATURE.findall(block)[:MAX_SENSORS]:
        degrees = float(value)
        if int(kind) not in TEMPERATURE_TYPES or degrees == 0.0 or not _plausible(degrees):
            continue
        celsius[f"{TEMPERATURE_TYPES[int(kind)]} {name}"] = degrees
        if int(kind) == 3:
            skin.append(degrees)
    faked = "IsStatusOverride: true" in text
    return Thermal(int(status[1]), celsius, max(skin, default=None), faked)


def _plausible(degrees: float) -> bool:
    return PLAUSIBLE_CELSIUS[0] <= degrees <= PLAUSIBLE_CELSIUS[1]


def wakefulness(text: str) -> str:
    """The screen's state in `dumpsys power`: awake, asleep, dozing or dreaming."""
    match = re.search(r"\bmWakefulness=(Awake|Asleep|Dozing|Dreaming)\b", text)
    if match is None:
        raise ValueError("the power service tells no wakefulness")
    return match[1].lower()


def power_save(text: str) -> bool:
    """`settings get global low_power`: 1 or 0; `null` where it was never set."""
    word = text.strip()
    if word not in ("0", "1", "null"):
        raise ValueError(_first_line(text))
    return word == "1"


def cpu_list(text: str) -> tuple[int, ...]:
    """The kernel's lists of CPUs: `0-3,6`. The empty list is empty text."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        match = re.fullmatch(r"(\d{1,4})(?:-(\d{1,4}))?", part.strip(), re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if not first <= last < MAX_CPUS:
            raise ValueError(f"not a list of CPUs: {text.strip()[:60]!r}")
        found.update(range(first, last + 1))
    return tuple(sorted(found))


def cpu_parts(text: str) -> dict[int, tuple[int, int]]:
    """/proc/cpuinfo: CPU -> (implementer, part). It lists the cores that are online only."""
    found: dict[int, tuple[int, int]] = {}
    cpu, implementer = 0, None
    for line in text.split("\n"):
        name, _, value = line.partition(":")
        name, value = name.strip(), value.strip()
        if name == "processor" and re.fullmatch(r"\d{1,3}", value, re.ASCII):
            cpu, implementer = int(value), None
        elif name == "CPU implementer" and re.fullmatch(HEX, value):
            implementer = int(value, 16)
        elif name == "CPU part" and re.fullmatch(HEX, value) and implementer is not None:
            found[cpu] = (implementer, int(value, 16))
    if not found:
        raise ValueError("/proc/cpuinfo names no implementer and part")
    return found


def cpu_files(text: str) -> dict[str, list[str]]:
    """Output of `grep -H .` below /sys/devices/system/cpu: path -> its lines."""
    found: dict[str, list[str]] = {}
    for line in text.split("\n"):
        path, separator, value = line.partition(":")
        if separator and re.fullmatch(r"[A-Za-z0-9_/]{1,80}", path):
            found.setdefault(path, []).append(value.strip())
    return found


def time_in_state(lines: list[str]) -> dict[int, int]:
    """`stats/time_in_state` of a core: frequency in kHz -> time, in the kernel's ticks of 10 ms."""
    found: dict[int, int] = {}
    for line in lines:
        match = re.fullmatch(r"(\d{1,9}) (\d{1,15})", line.strip(), re.ASCII)
        if match is None:
            raise ValueError(f"not a line of time_in_state: {line[:60]!r}")
        found[int(match[1])] = int(match[2])
    return found


def residency(before: Mapping[int, int], after: Mapping[int, int]) -> dict[int, float]:
    """Share of the time between two `time_in_state` that a core was at each frequency (kHz); 0 shares are left out.

    ValueError when the two are not of one core and one boot, or no time went by.
    """
    if before.keys() != after.keys():
        raise ValueError("the frequencies of the core changed")
    ticks = {frequency: after[frequency] - before[frequency] for frequency in after}
    total = sum(ticks.values())
    if min(ticks.values(), default=0) < 0:
        raise ValueError("the counters went back: the phone was started anew")
    if total == 0:
        raise ValueError("the counters did not move")
    return {frequency: ticks[frequency] / total for frequency in sorted(ticks) if ticks[frequency]}


def _first_line(text: str) -> str:
    """The phone's own words as a reason, kept short."""
    line = next((line.strip() for line in text.split("\n") if line.strip()), "no output")
    return line[:120]
