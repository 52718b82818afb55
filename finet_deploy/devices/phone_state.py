"""A phone's facts and its state of the moment, asked in one round trip each. No root; every value is optional."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeVar

import msgspec

from finet_deploy.bench.protocol import THERMAL_STATUSES, DeviceInfo, DeviceState, Reading
from finet_deploy.devices import telemetry
from finet_deploy.devices.adb.errors import visible
from finet_deploy.devices.probes import reading
from finet_deploy.devices.sections import Section, ask

if TYPE_CHECKING:
    from finet_deploy.devices.adb.connection import Connection

__all__ = ["Core", "PhoneFacts", "PhoneState", "device_info", "device_state", "read_facts", "read_state"]

T = TypeVar("T")

_CPU = "/sys/devices/system/cpu"
FACTS = {
    "properties": "getprop",
    "machine": "uname -m",
    "kernel": "uname -r",
    "cpuinfo": "cat /proc/cpuinfo",
    "meminfo": "cat /proc/meminfo",
    "cpu": f"cd {_CPU} && grep -H . possible present online cpu[0-9]*/cpu_capacity"
    " cpu[0-9]*/cpufreq/cpuinfo_max_freq cpu[0-9]*/cpufreq/cpuinfo_min_freq",
}
STATE = {
    "meminfo": "cat /proc/meminfo",
    "loadavg": "cat /proc/loadavg",
    "uptime": "cat /proc/uptime",
    "boot": "getprop sys.boot_completed",
    "battery": "dumpsys battery",
    "thermal": "dumpsys thermalservice",
    "power": "dumpsys power | grep mWakefulness=",
    "low_power": "settings get global low_power",
    "cpu": f"cd {_CPU} && grep -H . online cpu[0-9]*/cpufreq/scaling_governor"
    " cpu[0-9]*/cpufreq/scaling_cur_freq cpu[0-9]*/cpufreq/scaling_max_freq"
    " cpu[0-9]*/cpufreq/stats/time_in_state",
}


class Core(msgspec.Struct, frozen=True, kw_only=True):
    """One core. `capacity` is the kernel's, 1024 for the biggest; a figure that the phone does not tell is None."""

    index: int
    online: bool
    capacity: int | None = None
    max_mhz: float | None = None
    implementer: int | None = None
    part: int | None = None


class PhoneFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What a phone is. `emulated`: it says itself that another machine plays it."""

    manufacturer: Reading[str]
    model: Reading[str]
    device: Reading[str]
    soc: Reading[str]
    android_version: Reading[str]
    sdk: Reading[int]
    security_patch: Reading[str]
    fingerprint: Reading[str]
    abi: Reading[str]
    machine: Reading[str]
    kernel: Reading[str]
    memory_mib: Reading[int]
    cores: Reading[tuple[Core, ...]]
    emulated: bool


class PhoneState(msgspec.Struct, frozen=True, kw_only=True):
    """What a phone was doing at one moment. Frequencies in MHz by core; `time_in_state`: core -> kHz -> 10 ms ticks.

    thermal_status: 0 none to 6 shutdown. skin_celsius: the hottest sensor under the case. faked: battery or thermal
    values were set by hand (`dumpsys battery set`), not measured.
    """

    uptime_seconds: Reading[float]
    boot_completed: Reading[bool]
    load_average_1min: Reading[float]
    memory_available_mib: Reading[int]
    thermal_status: Reading[int]
    temperatures_celsius: Reading[dict[str, float]]
    skin_celsius: Reading[float]
    battery_percent: Reading[float]
    battery_celsius: Reading[float]
    on_power: Reading[bool]
    faked: bool
    screen: Reading[str]
    power_save: Reading[bool]
    online: Reading[tuple[int, ...]]
    governor: Reading[str]
    frequencies_mhz: Reading[dict[int, float]]
    frequency_caps_mhz: Reading[dict[int, float]]
    time_in_state: Reading[dict[int, dict[int, int]]]


def read_facts(connection: Connection) -> PhoneFacts:
    """Ask the phone what it is. Raises what `Connection.shell` raises."""
    found = ask(connection, FACTS)
    given = reading(lambda: telemetry.properties(found["properties"].text))
    values = given.value or {}

    def of(*names: str) -> Reading[str]:
        return reading(lambda: telemetry.required(values, *names)) if values else Reading(reason=given.reason)

    return PhoneFacts(
        manufacturer=of("ro.product.manufacturer", "ro.product.brand"),
        model=of("ro.product.model"),
        device=of("ro.product.device"),
        soc=reading(lambda: telemetry.soc_name(values)) if values else Reading(reason=given.reason),
        android_version=of("ro.build.version.release"),
        sdk=reading(lambda: _integer(telemetry.required(values, "ro.build.version.sdk"))),
        security_patch=of("ro.build.version.security_patch"),
        fingerprint=of("ro.build.fingerprint"),
        abi=of("ro.product.cpu.abi"),
        machine=reading(lambda: found["machine"].text.strip()),
        kernel=reading(lambda: found["kernel"].text.strip()),
        memory_mib=reading(lambda: telemetry.memory_mib(found["meminfo"].text, "MemTotal")),
        cores=reading(lambda: _cores(found["cpu"], found["cpuinfo"])),
        emulated="1" in (values.get("ro.kernel.qemu"), values.get("ro.boot.qemu")),
    )


def read_state(connection: Connection) -> PhoneState:
    """Ask the phone what it is doing. Raises what `Connection.shell` raises."""
    return parse_state(ask(connection, STATE))


def parse_state(found: Mapping[str, Section]) -> PhoneState:
    """The state in the answers to `STATE`."""
    battery = reading(lambda: telemetry.parse_battery(found["battery"].text))
    thermal = reading(lambda: telemetry.parse_thermal(found["thermal"].text))
    cpu = reading(lambda: telemetry.cpu_files(found["cpu"].text))
    files = cpu.value or {}

    def clocks(name: str) -> Reading[dict[int, float]]:
        return _of(cpu, lambda paths: _by_core(paths, name, lambda lines: _integer(lines[0]) / 1000))

    return PhoneState(
        uptime_seconds=reading(lambda: _decimal(found["uptime"].text.split()[0])),
        boot_completed=reading(lambda: _booted(found["boot"])),
        load_average_1min=reading(lambda: _decimal(found["loadavg"].text.split()[0])),
        memory_available_mib=reading(lambda: telemetry.memory_mib(found["meminfo"].text, "MemAvailable")),
        thermal_status=_of(thermal, lambda heat: heat.status),
        temperatures_celsius=_of(thermal, lambda heat: _some(heat.celsius, "no sensor gives a temperature")),
        skin_celsius=_of(thermal, lambda heat: _given(heat.skin, "no sensor under the case")),
        battery_percent=_of(battery, lambda state: state.percent),
        battery_celsius=_of(battery, lambda state: _given(state.celsius, "no battery temperature")),
        on_power=_of(battery, lambda state: state.on_power),
        faked=bool((battery.value and battery.value.faked) or (thermal.value and thermal.value.faked)),
        screen=reading(lambda: telemetry.wakefulness(found["power"].text)),
        power_save=reading(lambda: telemetry.power_save(found["low_power"].text)),
        online=_of(cpu, lambda paths: telemetry.cpu_list(_file(paths, "online")[0])),
        governor=_of(
            cpu, lambda paths: ", ".join(sorted(set(_by_core(paths, "scaling_governor", _word).values())))
        ),
        frequencies_mhz=clocks("scaling_cur_freq"),
        frequency_caps_mhz=clocks("scaling_max_freq"),
        time_in_state=_of(cpu, lambda paths: _by_core(files, "stats/time_in_state", telemetry.time_in_state)),
    )


def unread_state(reason: str) -> PhoneState:
    """A state of which nothing could be read."""
    unread: dict[str, object] = {name: Reading(reason=reason) for name in PhoneState.__struct_fields__}
    return PhoneState(**{**unread, "faked": False})  # type: ignore[arg-type]


def device_info(name: str, facts: PhoneFacts, *, emulated: bool = False) -> DeviceInfo:
    """The facts as a benchmark's job holds them."""
    cores = facts.cores.value
    title = " ".join(filter(None, (facts.manufacturer.value, facts.model.value)))
    soc = facts.soc.value
    model = visible(f"{soc} in {title}" if soc and title else soc or title)  # it will stand in tables
    version = facts.android_version.value
    return DeviceInfo(
        name=name,
        kind="android",
        emulated=emulated or facts.emulated,
        cpu_model=Reading(value=model) if model else Reading(reason=facts.soc.reason),
        cpu_count=max(1, len(cores or ())),
        machine=facts.machine,
        operating_system=Reading(value=f"Android {version}") if version else facts.android_version,
        memory_mib=facts.memory_mib,
    )


def device_state(state: PhoneState) -> DeviceState:
    """The state as a record of the protocol holds it."""
    return DeviceState(
        load_average_1min=state.load_average_1min,
        governor=state.governor,
        frequencies_mhz=_of(
            state.frequencies_mhz, lambda clocks: tuple(clocks[core] for core in sorted(clocks))
        ),
        memory_available_mib=state.memory_available_mib,
        temperatures_celsius=state.temperatures_celsius,
        battery_percent=state.battery_percent,
        battery_charging=state.on_power,
        thermal_status=_of(state.thermal_status, lambda number: THERMAL_STATUSES[number]),
        thermal_headroom=Reading(reason="the phone tells it to apps alone"),
        sustained_performance=Reading(reason="a mode of an app's window"),
    )


def _cores(cpu: Section, cpuinfo: Section) -> tuple[Core, ...]:
    files = telemetry.cpu_files(cpu.text)
    present = next((files[name] for name in ("present", "possible", "online") if name in files), None)
    if present is None:
        raise ValueError(cpu.reason)
    parts = reading(lambda: telemetry.cpu_parts(cpuinfo.text)).value or {}
    online = telemetry.cpu_list(files["online"][0]) if "online" in files else telemetry.cpu_list(present[0])
    cores = []
    for index in telemetry.cpu_list(present[0]):
        capacity = reading(lambda: _integer(_file(files, f"cpu{index}/cpu_capacity")[0])).value  # noqa: B023
        clock = reading(lambda: _integer(_file(files, f"cpu{index}/cpufreq/cpuinfo_max_freq")[0])).value  # noqa: B023
        implementer, part = parts.get(index, (None, None))
        cores.append(
            Core(
                index=index,
                online=index in online,
                capacity=capacity,
                max_mhz=None if clock is None else clock / 1000,
                implementer=implementer,
                part=part,
            )
        )
    if not cores:
        raise ValueError("the kernel lists no core")
    return tuple(cores)


def _of(given: Reading, read: Callable) -> Reading:
    """A value taken out of another reading; its reason when there is none."""
    value = given.value
    return Reading(reason=given.reason) if value is None else reading(lambda: read(value))


def _booted(section: Section) -> bool:
    """The property is empty until Android is up."""
    if section.status == 0 and not section.stdout.strip():
        return False
    return section.text.strip() == "1"


def _by_core(files: Mapping[str, list[str]], name: str, parse: Callable[[list[str]], T]) -> dict[int, T]:
    found = {}
    for path, lines in files.items():
        match = re.fullmatch(rf"cpu(\d{{1,4}})/cpufreq/{re.escape(name)}", path)
        if match:
            found[int(match[1])] = parse(lines)
    return _some(found, f"no cpufreq/{name} can be read")


def _file(files: Mapping[str, list[str]], path: str) -> list[str]:
    if path not in files:
        raise ValueError(f"{path} cannot be read")
    return files[path]


def _word(lines: list[str]) -> str:
    return lines[0][:40]


def _integer(text: str) -> int:
    if not re.fullmatch(r"\d{1,15}", text.strip(), re.ASCII):
        raise ValueError(f"not a number: {text.strip()[:40]!r}")
    return int(text)


def _decimal(text: str) -> float:
    if not re.fullmatch(r"\d{1,12}(\.\d{1,9})?", text, re.ASCII):
        raise ValueError(f"not a number: {text[:40]!r}")
    return float(text)


def _some(values: dict, reason: str) -> dict:
    if not values:
        raise ValueError(reason)
    return values


def _given(value: T | None, reason: str) -> T:
    if value is None:
        raise ValueError(reason)
    return value
