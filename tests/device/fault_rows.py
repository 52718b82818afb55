"""The faults that a phone can throw at a benchmark, and how the command must end in each phase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from finet_deploy.devices.adb.errors import (
    PhoneError,
    PhoneGone,
    PhoneNoSpace,
    PhoneProtocolError,
    PhoneRefused,
    PhoneTimeout,
    PhoneUnauthorized,
)
from finet_deploy.devices.rest import PhoneHot

__all__ = ["FAULTS", "FILES", "FIRST_VISIT", "PHASES", "RUNNING", "SYNC", "Ending", "FaultRow"]

PHASES = ("connect", "probe", "push", "equivalence", "warm-up", "timing", "collect")
FIRST_VISIT = 2  # job 1 proves the row
RUNNING = {"equivalence": 1, "warm-up": FIRST_VISIT, "timing": FIRST_VISIT}

# What strikes a service lies in wait for it: for the phone's shell, for a file's transfer, or for a job being sent.
SHELL = {
    "probe": "begin properties",
    "push": r"\.incoming/.*sha256sum",
    **dict.fromkeys(RUNNING, "begin rc"),
    "collect": "tail -c",
}
FILES = {**SHELL, "push": r"^send:.*/\.incoming/", "collect": r"^recv:.*/records\.jsonl$"}
SYNC = "^sync:"
SENDING = dict.fromkeys(("equivalence", "warm-up"), r"^send:.*/request\.json") | {"push": FILES["push"]}


@dataclass(frozen=True)
class Ending:
    """How a command ends. error: the class whose remedy its last line has. status: its exit status. reason: why the
    visit does not count."""

    text: str
    status: int = 0
    error: type[PhoneError] | None = None
    remedy: str | None = None
    reason: str | None = None


RIDES = Ending("rides it out")
INTERRUPTED = Ending("stops: Ctrl-C", 130)


def stops(error: type[PhoneError], remedy: str | None = None) -> Ending:
    """With this error, whose remedy is the class's own or the given one. What is done is kept, `--resume` goes on."""
    return Ending(f"stops: {error.__name__}", 1, error, remedy or error.remedy)


def spoils(reason: str) -> Ending:
    """The visit, and says why; the others go on."""
    return Ending("visit invalid", 1, reason=reason)


@dataclass(frozen=True)
class FaultRow:
    """One fault. kind, values: the simulator's (`fill`: the phone's storage, `interrupt`: Ctrl-C); more: by phase.

    where: the services that it lies in wait for; None: it strikes the phone or the link itself, at once. first: what
    strikes instead while connecting. lost: nothing reaches the phone afterwards. patient: seconds until a silent phone
    is given up. endings: by phase; text is the reason why a cell cannot exist.
    """

    name: str
    kind: str
    endings: Mapping[str, Ending | str]
    where: Mapping[str, str] | None = None
    values: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    first: str | None = None
    lost: bool = False
    patient: float = 60.0


def everywhere(ending: Ending, **others: Ending | str) -> dict[str, Ending | str]:
    """The same ending in all phases but some. A keyword's `_` stands for `-`."""
    return {**dict.fromkeys(PHASES, ending), **{name.replace("_", "-"): end for name, end in others.items()}}


def only(reason: str, **endings: Ending) -> dict[str, Ending | str]:
    """Endings of the phases in which the fault can exist; the others' reason."""
    return {**dict.fromkeys(PHASES, reason), **{name.replace("_", "-"): end for name, end in endings.items()}}


ALWAYS = {"times": None}
BYTES = {
    "connect": {"after_bytes": 10},
    "push": {"after_bytes": 60_000},
    "collect": {"after_bytes": 1000, "direction": "out"},
}
TAKEN = "for memory, perhaps: close other apps"
DAMAGED = "check the cable and the phone's storage"
NOT_ASKED = "no hash comes from the phone then"
NOT_SENT = "nothing is sent to the phone then"
NO_RUNNER = "the runner does not run then"
WRONG_PORT = "check host and port"
ADDRESS = "check the address"

FAULTS = (
    FaultRow("refuse the key", "revoke", everywhere(stops(PhoneUnauthorized)), lost=True),
    FaultRow("drop the link once", "cut", everywhere(RIDES, connect=stops(PhoneGone)), FILES, more=BYTES),
    FaultRow(
        "pull the cable",
        "unplug",
        everywhere(stops(PhoneGone, ADDRESS)),
        lost=True,
    ),
    FaultRow(
        "stall once",
        "stall",
        everywhere(RIDES, connect=stops(PhoneTimeout)),
        FILES,
        more=BYTES,
        patient=1.0,
    ),
    FaultRow("stall each time", "stall", everywhere(stops(PhoneTimeout)), FILES, ALWAYS, BYTES, patient=1.0),
    FaultRow("no space left", "fill", everywhere(stops(PhoneNoSpace), collect=RIDES)),
    FaultRow(
        "answer slowly",
        "delay",
        everywhere(RIDES),
        FILES,
        {"value": 0.4},
        {"connect": {"value": 50_000}},
        first="rate",
    ),
    FaultRow(
        "reboot",
        "reboot",
        everywhere(
            RIDES,
            connect=stops(PhoneGone, ADDRESS),
            warm_up=spoils("started anew"),
            timing=spoils("started anew"),
        ),
        values={"value": 0.3},
    ),
    FaultRow(
        "switch off", "reboot", everywhere(stops(PhoneGone, ADDRESS)), values={"value": 600.0}, lost=True
    ),
    FaultRow(
        "kill the runner for memory",
        "kill",
        only(NO_RUNNER, equivalence=RIDES, warm_up=spoils(TAKEN), timing=spoils(TAKEN)),
        values={"target": "run[.]sh .*request[.]json"},
    ),
    FaultRow(
        "kill all of ours for memory",
        "kill",
        only(NO_RUNNER, equivalence=RIDES, warm_up=spoils(TAKEN), timing=spoils(TAKEN)),
        values={"target": "job-"},
    ),
    FaultRow("overheat and throttle", "overheat", everywhere(stops(PhoneHot))),
    FaultRow(
        "garbage once",
        "garbage",
        everywhere(RIDES, connect=stops(PhoneProtocolError, WRONG_PORT)),
        {**SHELL, "collect": FILES["collect"]},
        first="babble",
    ),
    FaultRow(
        "garbage each time",
        "garbage",
        everywhere(stops(PhoneProtocolError), connect=stops(PhoneProtocolError, WRONG_PORT)),
        {**SHELL, "collect": FILES["collect"]},
        ALWAYS,
        first="babble",
    ),
    FaultRow(
        "endless output each time",
        "endless",
        everywhere(stops(PhoneProtocolError), connect="a greeting has a length"),
        {**SHELL, "collect": FILES["collect"]},
        ALWAYS,
    ),
    FaultRow("noise for output once", "noise", everywhere(RIDES, connect="no command runs then"), SHELL),
    FaultRow(
        "noise for output each time",
        "noise",
        everywhere(
            stops(PhoneProtocolError),
            connect="no command runs then",
            push=stops(PhoneError, DAMAGED),
            collect=RIDES,
        ),
        SHELL,
        ALWAYS,
    ),
    FaultRow("lie about a hash once", "lie", only(NOT_ASKED, push=RIDES), SHELL),
    FaultRow(
        "lie about a hash each time", "lie", only(NOT_ASKED, push=stops(PhoneError, DAMAGED)), SHELL, ALWAYS
    ),
    FaultRow(
        "store a wrong byte once",
        "corrupt",
        only(NOT_SENT, push=RIDES, equivalence=RIDES, warm_up=RIDES),
        SENDING,
        {"after_bytes": 20},
    ),
    FaultRow(
        "store a wrong byte each time",
        "corrupt",
        only(
            NOT_SENT,
            push=stops(PhoneError, DAMAGED),
            equivalence=stops(PhoneError, DAMAGED),
            warm_up=stops(PhoneError, DAMAGED),
        ),
        SENDING,
        {"after_bytes": 20, **ALWAYS},
    ),
    FaultRow(
        "refuse the service once",
        "refuse",
        everywhere(RIDES, connect=stops(PhoneGone)),
        {**SHELL, "push": SYNC, "collect": SYNC},
        first="hang_up",
    ),
    FaultRow(
        "refuse the service each time",
        "refuse",
        everywhere(stops(PhoneRefused), connect=stops(PhoneGone)),
        {**SHELL, "push": SYNC, "collect": SYNC},
        ALWAYS,
        first="hang_up",
    ),
    FaultRow("Ctrl-C", "interrupt", everywhere(INTERRUPTED)),
)
