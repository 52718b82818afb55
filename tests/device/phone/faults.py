"""What the simulated phone does wrong on demand."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["KINDS", "Armed", "Fault", "FaultBook", "parse_fault"]

KINDS = {
    # of the link: fire when armed, after `after_bytes` of the link's bytes, or after `after_s` seconds
    "cut": "the connection drops",
    "stall": "the connection stays open and silent, for `value` seconds (for ever without)",
    "rate": "at most `value` bytes a second, in each direction",
    "bad_checksum": "every packet's checksum is wrong",
    # of the phone: the same three ways to fire
    "kill": "SIGKILL for the processes whose command line matches `target`, as the low-memory killer does",
    "reboot": "every process dies, the port is closed for `value` seconds (default 1), new boot id, /data kept",
    "overheat": "thermal status severe, `value` °C (default 85), clocks capped",
    "unplug": "the connection drops and the port is closed for `value` seconds (without: until faults are cleared)",
    "revoke": "the connection drops and no key is known or accepted any more, until faults are cleared",
    # of a service: the one that `when` matches
    "refuse": "the service is refused",
    "delay": "the service answers `value` seconds late",
    "garbage": "the service answers with random bytes for ever; a pull too",
    "noise": "the service's standard output is random bytes, its exit status true",
    "endless": "the standard output never ends; nor does a pulled file",
    "silent": "the standard output is dropped",
    "lie": "every SHA-256 in the standard output is another one",
    "no_space": "a push fails with `No space left on device` after `after_bytes` of its file",
    "corrupt": "a push writes one wrong byte, at `after_bytes` of its file, and says OKAY",
    # of the handshake
    "offline": "the phone does not answer CNXN",
    "hang_up": "the phone closes on CNXN",
    "babble": "the phone answers CNXN with random bytes",
}
FIRING = {"cut", "stall", "kill", "reboot", "overheat", "unplug", "revoke"}
LINK = {"cut", "stall", "rate", "bad_checksum"}


@dataclass(frozen=True)
class Fault:
    """One fault.

    kind: a key of `KINDS`. when: a regular expression searched in the opened service (`shell,v2,raw:getprop`,
    `sync:`; pushes and pulls also as `send:PATH` and `recv:PATH`); None arms it with the connection.
    after_bytes: bytes in `direction` ("in" to the phone, "out" from it) since it was armed. after_s: seconds since
    then. times: how often it is armed; None for ever. value, target: see `KINDS`.
    """

    kind: str
    when: str | None = None
    after_bytes: int | None = None
    after_s: float | None = None
    direction: str = "in"
    times: int | None = 1
    value: float | None = None
    target: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no fault {self.kind!r}; there are {', '.join(KINDS)}")
        if self.direction not in ("in", "out"):
            raise ValueError(f"direction is 'in' or 'out', not {self.direction!r}")
        if self.kind in ("kill",) and self.target is None:
            raise ValueError("kill needs a target: a regular expression for command lines")
        if self.kind in ("rate", "delay") and not (self.value and self.value > 0):
            raise ValueError(f"{self.kind} needs a positive value")
        for pattern in (self.when, self.target):
            if pattern is not None:
                re.compile(pattern)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def matches(self, service: str | None) -> bool:
        if self.when is None or service is None:
            return self.when is None and service is None
        return re.search(self.when, service, re.DOTALL) is not None


def parse_fault(text: str) -> Fault:
    """`cut,when=^sync:,after_bytes=5000000` as a fault. Raises ValueError. Commas in patterns are written `\\x2c`."""
    kind, *options = text.split(",")
    values: dict[str, Any] = {"kind": kind}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            raise ValueError(f"{option!r} is not NAME=VALUE")
        if name in ("after_bytes", "times"):
            values[name] = None if value == "none" else int(value)
        elif name in ("after_s", "value"):
            values[name] = float(value)
        elif name in ("when", "direction", "target"):
            values[name] = value
        else:
            raise ValueError(f"a fault has no {name!r}")
    return Fault(**values)


@dataclass
class Armed:
    """A fault at work on one connection; `left` bytes until it fires."""

    fault: Fault
    left: int | None = None

    def __post_init__(self) -> None:
        self.left = self.fault.after_bytes

    def counts(self, direction: str) -> bool:
        return self.left is not None and self.left > 0 and self.fault.direction == direction


@dataclass
class FaultBook:
    """The faults that wait, and how often each was armed."""

    waiting: list[tuple[Fault, int]] = field(default_factory=list)
    armed: list[str] = field(default_factory=list)

    def add(self, fault: Fault) -> None:
        self.waiting.append((fault, 0))

    def clear(self) -> None:
        self.waiting.clear()

    def take(self, service: str | None, kinds: set[str] | None = None) -> list[Fault]:
        """The faults that the service (None: a new connection) arms; one whose `times` are over is dropped."""
        taken, kept = [], []
        for fault, count in self.waiting:
            if fault.matches(service) and (kinds is None or fault.kind in kinds):
                taken.append(fault)
                self.armed.append(fault.kind)
                count += 1
            if fault.times is None or count < fault.times:
                kept.append((fault, count))
        self.waiting = kept
        return taken
