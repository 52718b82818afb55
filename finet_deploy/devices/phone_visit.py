"""One visit on a phone: a detached job, watched, and its records brought back."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from finet_deploy.bench.protocol import (
    UNFINISHED,
    DeviceState,
    End,
    Invalid,
    Reading,
    Record,
    Start,
    VisitRequest,
)
from finet_deploy.devices import telemetry
from finet_deploy.devices.adb.connection import quote
from finet_deploy.devices.adb.errors import PhoneNoSpace, PhoneRefused
from finet_deploy.devices.affinity import hex_mask
from finet_deploy.devices.host import collect_records
from finet_deploy.devices.patience import Patience, best_effort, persist, transient
from finet_deploy.devices.phone_state import PhoneState, device_state
from finet_deploy.devices.probes import reading
from finet_deploy.devices.remote_job import RemoteJob, Verdict
from finet_deploy.devices.rest import Rest, Watch

if TYPE_CHECKING:
    from collections.abc import Callable

    from finet_deploy.devices.adb.connection import Connection
    from finet_deploy.devices.sections import Section

__all__ = [
    "ONCE",
    "RECORDS",
    "Outcome",
    "PhoneVisit",
    "Pin",
    "VisitRunner",
    "pin",
    "residency",
    "with_states",
]

MAX_RECORD_BYTES = 64 << 20
REQUEST, RECORDS, OUTPUTS, PROFILE = "request.json", "records.jsonl", "outputs", "profile.json"
ONCE = Patience(attempts=1)

PHASES = ("start", "load", "first", "warmup", "timing", "check")  # by how many records a runner has written
KILLED = 128 + 9
FULL_KIB = 1024  # a phone with less than this left is full

MEMORY = "for memory, perhaps: close other apps and measure again"
REASONS = {
    "killed": f"the job was killed on the phone ({MEMORY}): it left neither a result nor a process",
    "rebooted": "the phone was started anew while the job ran; let it settle and measure again",
}


class Pin(msgspec.Struct, frozen=True, kw_only=True):
    """The cores that a visit was to run on. `mask`: as taskset took it, or null and why it runs unpinned."""

    cores: tuple[int, ...]
    mask: Reading[str]


class PhoneVisit(msgspec.Struct, tag_field="type", tag="visit", frozen=True, kw_only=True):
    """What is known of a visit beside its records.

    attempt: 1, or 2 when it was done again; `repeated_because`: what spoiled the attempts before; `contaminated`: what
    spoiled this one. allowed_cores: as the kernel told while it ran, looks in order. residency: core -> kHz -> share
    of the time from before to after.
    """

    visit: int
    attempt: int
    repeated_because: tuple[str, ...] = ()
    contaminated: tuple[str, ...] = ()
    rest: Rest
    pin: Pin
    allowed_cores: tuple[tuple[int, ...], ...] = ()
    residency: Reading[dict[int, dict[int, float]]]
    before: PhoneState
    after: PhoneState


@dataclass(frozen=True)
class Outcome:
    """What came of one job. records: end with `End` or `Invalid`. taken: the phone ended it, not its own fault.

    repeated_because: what ended the tries before, where it was tried again.
    """

    records: list[Record]
    taken: bool = False
    repeated_because: tuple[str, ...] = ()


@dataclass(frozen=True)
class VisitRunner:
    """Runs visits with the runner in `runner`, a folder on the phone below `folder`, our own.

    also: a shell command that goes along with every look at a running job. profile: where what the runner writes about
    the operators of the timed calls is brought to; None: it is not profiled.
    """

    connection: Connection
    folder: str
    runner: str
    patience: Patience
    note: Callable[[str], None]
    also: str = "true"
    profile: Path | None = None

    def run(
        self, request: VisitRequest, pinned: Pin, watch: Watch, *, name: str, outputs: Path | None = None
    ) -> Outcome:
        """One visit; `name` is what it is called in messages. With `outputs`, what the network gave for the golden
        inputs is brought to that file (and `.json`), when the visit came so far.

        Raises `PhoneError` when the phone is lost or full; whatever is raised, the job is ended first, if that can be.
        """
        deadline = request.settings.visit_timeout_seconds
        job = RemoteJob(
            self.connection, self.folder, deadline_seconds=deadline, patience=self.patience, name=name
        )
        try:
            command = self._command(job, request, pinned, outputs is not None)
            job.start(command, {REQUEST: msgspec.json.encode(request)})
            verdict = job.wait(
                expected_seconds=min(_least_seconds(request), deadline),
                commands=lambda: {"also": self.also, **self._questions(job, watch)},
                watch=lambda answers: _look(job, watch, answers),
                note=self.note,
            )
            records = self._collect(job, request, verdict)
            if outputs is not None and isinstance(records[-1], End):
                for suffix in ("", ".json"):
                    self._pull(job, OUTPUTS + suffix, outputs.with_name(outputs.name + suffix))
            if self.profile is not None and isinstance(records[-1], End):
                self._pull(job, PROFILE, self.profile)
        except BaseException:
            # Also after Ctrl-C: nothing of ours goes on there. A phone out of reach ends the job at its deadline.
            with best_effort(self.note, f"ending {name} on the phone"):
                self._stop(job)
            with best_effort(self.note, f"removing what {name} left on the phone"):
                job.remove(ONCE)
            raise
        with best_effort(self.note, f"removing what {name} left on the phone"):
            job.remove()
        taken = verdict.kind in REASONS or (verdict.kind == "finished" and verdict.status == KILLED)
        return Outcome(records, taken)

    def _command(self, job: RemoteJob, request: VisitRequest, pinned: Pin, outputs: bool) -> str:
        """The shell command of the job, which has its request in its folder and leaves the records there."""
        mask = pinned.mask.value
        words = ["taskset", mask] if mask is not None else []
        words += ["sh", f"{self.runner}/run.sh", f"{job.folder}/{REQUEST}", f"{job.folder}/{RECORDS}"]
        words += ["--outputs", f"{job.folder}/{OUTPUTS}"] if outputs else []
        words += ["--profile", f"{job.folder}/{PROFILE}"] if self.profile is not None else []
        return f"exec {quote(*words)}"

    def _questions(self, job: RemoteJob, watch: Watch) -> dict[str, str]:
        """What is asked with every look at the running job; `reached`: how many records there are."""
        reached = f"wc -l < {quote(job.folder)}/{RECORDS}{UNFINISHED}"
        return {"reached": reached, **watch.commands(job.command_in_process)}

    def _stop(self, job: RemoteJob) -> None:
        job.stop(ONCE)

    def _collect(self, job: RemoteJob, request: VisitRequest, verdict: Verdict) -> list[Record]:
        """The records, complete or not, as they would look had the visit been here."""
        status = verdict.status if verdict.status is not None else KILLED
        with tempfile.TemporaryDirectory(prefix="finet-deploy-collect-") as name:
            local = Path(name)
            if not self._pull(job, RECORDS, local / RECORDS):
                self._pull(job, RECORDS + UNFINISHED, local / (RECORDS + UNFINISHED))
            (local / "stderr.txt").write_bytes(job.log_tail().encode())
            signed = 128 - status if status > 128 else status  # a shell's 128 + signal
            records = collect_records(local, request, signed, verdict.kind == "timeout")
        last = records[-1]
        if isinstance(last, Invalid):
            self._refuse_full(job)
            records[-1] = self._explained(job, last, verdict, request)
        return records

    def _explained(self, job: RemoteJob, last: Invalid, verdict: Verdict, request: VisitRequest) -> Invalid:
        """What a failed visit's last record says, with what the verdict tells beyond it."""
        if verdict.kind in REASONS:
            known = {"reason": REASONS[verdict.kind], "signal": None, "exit_status": None}
            return msgspec.structs.replace(last, **known)
        if verdict.kind == "finished" and verdict.status == KILLED:
            return msgspec.structs.replace(last, reason=f"{last.reason} ({MEMORY})")
        return last

    def _refuse_full(self, job: RemoteJob) -> None:
        """A runner that failed on a full phone says nothing of the network: the run stops, and can go on later."""
        command, doing = f"df -k {quote(job.folder)}", f"collecting {job.name}"
        result = persist(self.connection, lambda: self.connection.shell(command), self.patience, doing)
        numbers = re.search(rb"\s\d+\s+\d+\s+(\d+)\s+\d+%\s", result.stdout)
        if numbers is not None and int(numbers[1]) < FULL_KIB:
            what = f"while waiting for {job.last_seen}: it failed, and the phone's storage is full"
            raise PhoneNoSpace(self.connection.name, what, f"{int(numbers[1])} KiB are left")

    def _pull(self, job: RemoteJob, name: str, local: Path) -> bool:
        remote = f"{job.folder}/{name}"
        try:
            persist(
                self.connection,
                lambda: self.connection.pull(remote, local, max_bytes=MAX_RECORD_BYTES),
                self.patience,
                f"collecting {job.name}",
            )
        except PhoneRefused as error:
            if transient(error):
                raise
            return False  # it is not there: what that means, the records and the verdict say
        return True


def _look(job: RemoteJob, watch: Watch, answers: Mapping[str, Section]) -> None:
    """What a look told, for the watch and for messages."""
    watch.take(answers)
    lines = answers["reached"].stdout.strip()
    if lines.isdigit():
        job.reached = PHASES[min(int(lines[:6]), len(PHASES) - 1)]


def pin(connection: Connection, cores: Sequence[int], patience: Patience) -> Pin:
    """Try the mask of `cores` on the phone and read it back. Without success twice, the visit runs unpinned."""
    mask = hex_mask(cores)
    command = f"taskset {mask} grep Cpus_allowed_list: /proc/self/status"
    reason = ""
    for _ in range(2):
        result = persist(connection, lambda: connection.shell(command), patience, "pinning to cores")
        allowed = reading(lambda: telemetry.cpu_list(_value(result.stdout, result.stderr)))  # noqa: B023
        if allowed.value == tuple(cores):
            return Pin(cores=tuple(cores), mask=Reading(value=mask))
        reason = f"taskset {mask}: " + (allowed.reason or f"the kernel allows cores {allowed.value}")
    return Pin(cores=tuple(cores), mask=Reading(reason=reason))


def _value(stdout: bytes, stderr: bytes) -> str:
    text = stdout.decode("utf-8", "replace")
    name, _, value = text.partition(":")
    if name.strip() != "Cpus_allowed_list":
        raise ValueError(" ".join((stderr or stdout).decode("utf-8", "replace").split())[:200] or "no answer")
    return value


def residency(before: PhoneState, after: PhoneState) -> Reading[dict[int, dict[int, float]]]:
    """Share of time of each core at each frequency between two states."""
    if before.time_in_state.value is None or after.time_in_state.value is None:
        return Reading(reason=before.time_in_state.reason or after.time_in_state.reason)
    then, now = before.time_in_state.value, after.time_in_state.value
    return reading(lambda: {core: telemetry.residency(then[core], now[core]) for core in then if core in now})


def with_states(records: Sequence[Record], before: PhoneState, after: PhoneState) -> list[Record]:
    """The records, with what only the phone's services tell (heat, battery) where the runner could not read it."""
    merged: list[Record] = []
    for record in records:
        if isinstance(record, Start):
            record = msgspec.structs.replace(record, state=_merge(record.state, device_state(before)))
        elif isinstance(record, End):
            record = msgspec.structs.replace(record, state=_merge(record.state, device_state(after)))
        merged.append(record)
    return merged


def _merge(seen: DeviceState, told: DeviceState) -> DeviceState:
    fields: Mapping[str, Reading] = {name: getattr(seen, name) for name in seen.__struct_fields__}
    better = {
        name: getattr(told, name)
        for name, value in fields.items()
        if value.value is None and getattr(told, name).value is not None
    }
    return msgspec.structs.replace(seen, **better)


def _least_seconds(request: VisitRequest) -> float:
    """A visit takes at least this long: no need to look before."""
    settings = request.settings
    return settings.warmup_min_seconds + settings.timed_min_seconds
