"""When a phone is at rest, and whether it stayed so.

A visit starts only when the phone's thermal status is "none"; a round only when, beside that, the phone is no warmer
than at the start of the first round, give or take a band. What heats up or is throttled while it is measured is done
again once. A phone that does not tell is measured all the same, and its records say so.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from finet_deploy.bench.protocol import Reading
from finet_deploy.devices import telemetry
from finet_deploy.devices.adb.errors import PhoneError
from finet_deploy.devices.phone_state import PhoneState
from finet_deploy.devices.sections import Section

__all__ = ["PhoneHot", "Rest", "RestGate", "RestRule", "Watch", "contamination"]

STATUS_NAMES = ("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")


@dataclass(frozen=True)
class RestRule:
    """band_celsius: above the first round's temperature. deadline_seconds: of one wait. poll_seconds: between looks."""

    band_celsius: float = 3.0
    deadline_seconds: float = 600.0
    poll_seconds: float = 5.0
    repeats: int = 1


class PhoneHot(PhoneError):
    """The phone is throttled and did not come to rest: what it measures now would be another phone's times."""

    remedy = "let it cool, out of the sun and off the charger, then go on with --resume"


class Rest(msgspec.Struct, frozen=True, kw_only=True):
    """How a wait for rest ended. at_rest: None where the phone does not tell. waited_seconds: how long it took.

    celsius: the temperature that the band is about. problem: why it is not at rest, or is not known to be.
    """

    at_rest: bool | None
    throttled: bool
    waited_seconds: float
    celsius: Reading[float]
    problem: str | None = None

    def check(self, phone: str) -> None:
        """Raises `PhoneHot` when the phone is still throttled. One that is only warmer than before is measured."""
        if self.throttled:
            what = f"the phone did not come to rest within {self.waited_seconds:.3g} s: {self.problem}"
            raise PhoneHot(phone, f"while waiting for it to rest: {what}")


class RestGate:
    """Waits for rest, and remembers how warm the phone was when the first round began."""

    def __init__(self, rule: RestRule) -> None:
        self._rule = rule
        self._first: tuple[str, float] | None = None

    def wait(self, read: Callable[[], PhoneState], *, new_round: bool) -> tuple[PhoneState, Rest]:
        """Read states until the phone is at rest or the deadline has passed; the last state and the verdict."""
        begin = time.monotonic()
        while True:
            state = read()
            waited = time.monotonic() - begin
            problem, throttled = self._problem(state, new_round)
            celsius = _reference(state)
            if problem is None or waited >= self._rule.deadline_seconds:
                break
            time.sleep(min(self._rule.poll_seconds, max(0.0, self._rule.deadline_seconds - waited)))
        if problem is None:
            self.remember(state)
        known = state.thermal_status.value is not None
        unknown = f"thermal status is not known: {state.thermal_status.reason}"
        return state, Rest(
            at_rest=(problem is None) if known else None,
            throttled=throttled,
            waited_seconds=round(waited, 3),
            celsius=celsius,
            problem=problem or (None if known else unknown),
        )

    def remember(self, state: PhoneState) -> None:
        """Take this as how warm the phone was when the first round began, when nothing is known of that yet."""
        celsius = _reference(state).value
        if self._first is None and celsius is not None:
            self._first = (_reference_name(state), celsius)

    def _problem(self, state: PhoneState, new_round: bool) -> tuple[str | None, bool]:
        status = state.thermal_status.value
        if status:
            return f"thermal status {status} ({STATUS_NAMES[status]})", True
        celsius = _reference(state).value
        if new_round and self._first is not None and celsius is not None:
            name, first = self._first
            if name == _reference_name(state) and celsius > first + self._rule.band_celsius:
                return f"{name} at {celsius:g} °C, at the first round's start it was {first:g} °C", False
        return None, False


def _reference_name(state: PhoneState) -> str:
    return "skin" if state.skin_celsius.value is not None else "battery"


def _reference(state: PhoneState) -> Reading[float]:
    """The temperature under the case, which throttling goes by; the battery's where there is no such sensor."""
    return state.skin_celsius if state.skin_celsius.value is not None else state.battery_celsius


@dataclass
class Watch:
    """What is looked at while a job runs, cheap enough not to disturb it: caps of the used cores, and where it runs.

    The thermal service is asked at most every `thermal_seconds`.
    """

    cores: Sequence[int]
    thermal_seconds: float = 10.0
    allowed: list[tuple[int, ...]] = field(default_factory=list)
    caps_mhz: list[dict[int, float]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    _asked_thermal: float = field(default_factory=time.monotonic)

    def commands(self, in_process: Callable[[str], str]) -> dict[str, str]:
        """Shell commands by name, for the next look. in_process: makes a command about the job's process, `$r`."""
        files = " ".join(f"cpu{core}/cpufreq/scaling_max_freq" for core in self.cores)
        commands = {"allowed": in_process("grep Cpus_allowed_list: /proc/$r/status")}
        if files:
            commands["caps"] = f"cd /sys/devices/system/cpu && grep -H . {files}"
        if time.monotonic() - self._asked_thermal >= self.thermal_seconds:
            self._asked_thermal = time.monotonic()
            commands["heat"] = "dumpsys thermalservice"
        return commands

    def take(self, answers: Mapping[str, Section]) -> None:
        """Note what the answers tell; what they do not tell is left out."""
        with contextlib.suppress(ValueError, KeyError):  # the process may have ended between two looks
            self.allowed.append(telemetry.cpu_list(answers["allowed"].text.partition(":")[2]))
        with contextlib.suppress(ValueError, KeyError, IndexError):
            caps = telemetry.cpu_files(answers["caps"].text)
            clocks = {int(path[3:].partition("/")[0]): int(lines[0]) / 1000 for path, lines in caps.items()}
            self.caps_mhz.append(clocks)
        with contextlib.suppress(ValueError, KeyError):
            self.statuses.append(telemetry.parse_thermal(answers["heat"].text).status)


def contamination(
    before: PhoneState, after: PhoneState, watch: Watch, pinned: Sequence[int] | None
) -> tuple[str, ...]:
    """What happened during a visit that makes its times those of another phone than the one at rest."""
    found = []
    statuses = [status for status in (*watch.statuses, after.thermal_status.value) if status]
    if statuses:
        found.append(f"thermal status rose to {max(statuses)} ({STATUS_NAMES[max(statuses)]})")
    caps = before.frequency_caps_mhz.value or {}
    later = [*watch.caps_mhz, after.frequency_caps_mhz.value or {}]
    for core in watch.cores:
        lowest = min((clocks[core] for clocks in later if core in clocks), default=None)
        if core in caps and lowest is not None and lowest < caps[core]:
            found.append(f"core {core} was capped at {lowest:g} MHz, before at {caps[core]:g} MHz")
    if pinned is not None:
        moved = next((cores for cores in watch.allowed if cores != tuple(pinned)), None)
        if moved is not None:
            found.append(f"the kernel let it run on cores {_names(moved)} instead of {_names(pinned)}")
    if before.power_save.value is False and after.power_save.value:
        found.append("battery saver was switched on")
    return tuple(found)


def _names(cores: Sequence[int]) -> str:
    return ", ".join(map(str, cores)) or "none"
