"""A phone as a device: files pushed once, each visit a detached job, its outputs judged before its times count."""

from __future__ import annotations

import contextlib
import functools
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from finet_deploy.bench.protocol import (
    DeviceInfo,
    End,
    Invalid,
    Reading,
    Record,
    Row,
    VisitRequest,
)
from finet_deploy.devices.adb.errors import PhoneError, visible
from finet_deploy.devices.affinity import big_cores, choose_cores, core_kinds
from finet_deploy.devices.bring import bring, target_of
from finet_deploy.devices.equivalence import Equivalence
from finet_deploy.devices.patience import Patience, persist
from finet_deploy.devices.phone_files import on_phone
from finet_deploy.devices.phone_hold import PhoneHold
from finet_deploy.devices.phone_log import PhoneIdentity, PhoneLine, PhoneProof, append_line, read_lines
from finet_deploy.devices.phone_state import (
    Core,
    PhoneFacts,
    PhoneState,
    device_info,
    read_facts,
)
from finet_deploy.devices.phone_visit import PhoneVisit, Pin, VisitRunner, pin, residency, with_states
from finet_deploy.devices.proof import prove
from finet_deploy.devices.push import PushProgress, remove_folder
from finet_deploy.devices.remote_job import end_leftovers
from finet_deploy.devices.rest import Rest, RestGate, RestRule, Watch, contamination
from finet_deploy.runner import NATIVE_RUNTIMES, runner_folder

if TYPE_CHECKING:
    from finet_deploy.devices.adb.connection import Connection

__all__ = ["PHONE_FOLDER", "AndroidDevice"]

PHONE_FOLDER = "/data/local/tmp/finet-deploy"


def _quiet(text: str) -> None:
    """Nobody listens."""


class AndroidDevice:
    """A phone behind a `Connection`. Use it as a context manager: it holds the phone's lock from `prepare` on.

    runner: gives the folder of the runner for a target (`aarch64`, `x86_64`); by default the one that was built or
    came with the package. emulated: another machine plays the phone, whatever it says. pinned: run on chosen cores.
    note: told what a person should know; progress: told of pushes.
    """

    def __init__(
        self,
        connection: Connection,
        *,
        runner: Callable[[str], Path] | None = None,
        folder: str = PHONE_FOLDER,
        patience: Patience | None = None,
        rest: RestRule | None = None,
        emulated: bool = False,
        pinned: bool = True,
        note: Callable[[str], None] = _quiet,
        progress: PushProgress | None = None,
    ) -> None:
        self._connection, self._folder = connection, folder
        self._runner = runner or runner_folder
        self._patience = patience or Patience()
        self._rule = rest or RestRule()
        self._gate = RestGate(self._rule)
        self._emulated, self._pinned = emulated, pinned
        self._note, self._progress = note, progress
        self._hold = PhoneHold(connection, folder, self._patience)
        self._round: int | None = None
        self._folder_here: Path | None = None
        self._visits: VisitRunner | None = None
        self._said: set[str] = set()
        self._bound: dict[str, str] = {}
        self.visits: list[PhoneVisit] = []
        self.equivalence: dict[str, Equivalence] = {}

    def __enter__(self) -> AndroidDevice:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the phone back and let go of it."""
        self._hold.release()
        self._connection.close()

    @functools.cached_property
    def facts(self) -> PhoneFacts:
        """What the phone is. Raises `PhoneError`."""
        return persist(
            self._connection, lambda: read_facts(self._connection), self._patience, "probing the phone"
        )

    def state(self) -> PhoneState:
        """What the phone is doing."""
        return self._hold.state()

    def info(self) -> DeviceInfo:
        """What the phone is, as a job holds it."""
        return device_info(self._connection.name, self.facts, emulated=self._emulated)

    @property
    def runner(self) -> str:
        """The C++ one."""
        return "native"

    @property
    def runtimes(self) -> tuple[str, ...]:
        """Those of the native runner."""
        return NATIVE_RUNTIMES

    def default_threads(self) -> int:
        """As many as there are big cores."""
        return max(1, len(big_cores(self._cores)[0]))

    def core_kinds(self) -> dict[str, tuple[int, ...]]:
        """`big` and `little` -> cores; empty where there is one kind, or visits cannot be pinned."""
        return core_kinds(self._cores) if self._pinned else {}

    def bind(self, kinds: Mapping[str, str]) -> None:
        """From now on the visits of these rows (their ids) run on cores of a kind, not on the fastest ones."""
        self._bound = dict(kinds)

    def prepare(self, rows: Sequence[Row], folder: Path) -> None:
        """Lock the phone, end what an earlier run left there, push what is missing, and prove each file's outputs.

        A row whose outputs are wrong does not stop the others: its visits are invalid, with the reason.
        """
        self._folder_here = folder
        with self._resumable():
            lock = self._hold.acquire(self._note)
            for line in read_lines(folder):
                if isinstance(line, PhoneVisit):
                    self._gate.remember(line.before)  # a run that goes on keeps its first round's temperature
            self._record(PhoneIdentity(name=self._connection.name, facts=self.facts))
            self._end_leftovers()
            self._visits = self._bring(rows, folder, also=lock.sign_of_life)
            self._prove(self._visits, rows, folder)

    def _end_leftovers(self) -> None:
        """End what an earlier run left running on the phone."""
        end_leftovers(self._connection, self._folder, patience=self._patience)

    def _bring(self, rows: Sequence[Row], folder: Path, *, also: str) -> VisitRunner:
        """Bring to the phone what the visits of `rows` need. also: a command for every look at a running visit."""
        runner = bring(
            self._connection,
            self._folder,
            runner=self._runner(target_of(self._connection.name, self.facts)),
            rows=rows,
            run=folder,
            patience=self._patience,
            progress=self._progress,
            note=self._note,
        )
        return VisitRunner(self._connection, self._folder, runner, self._patience, self._note, also=also)

    def _prove(self, visits: VisitRunner, rows: Sequence[Row], folder: Path) -> None:
        known: dict[tuple[str, str, int], Equivalence] = {}
        for row in rows:
            key = (row.artifact.sha256, row.golden.sha256, row.threads)
            if key not in known:
                known[key] = self._prove_row(visits, row, folder)
            self.equivalence[row.id] = known[key]
            self._record(PhoneProof(row=row.id, equivalence=known[key]))

    def _prove_row(self, visits: VisitRunner, row: Row, folder: Path) -> Equivalence:
        return prove(visits, row, folder, self._pin(row.threads, self._bound.get(row.id)))

    def run_visit(self, request: VisitRequest) -> list[Record]:
        """One visit on the phone at rest; once more when it was spoiled. See `devices.base.Device`."""
        if self._visits is None or not self._hold.held:
            raise ValueError("prepare the device first")
        proof = self.equivalence.get(request.row.id)
        if proof is None or not proof.passed:
            reason = proof.problem if proof is not None else "the row was not proved"
            return [Invalid(visit=request.visit.index, reason=f"on the phone: {reason}", phase="check")]
        new_round, self._round = request.visit.round != self._round, request.visit.round
        repeated: tuple[str, ...] = ()
        with self._resumable():
            for attempt in range(1, self._rule.repeats + 2):
                before, rest = self._gate.wait(self._hold.awake_state, new_round=new_round)
                rest.check(self._connection.name)
                if rest.problem is not None:
                    self._say_once(rest.problem)
                records, visit = self._attempt(self._visits, request, before, rest, attempt, repeated)
                repeated = visit.contaminated
                if not repeated or not isinstance(records[-1], End) or attempt > self._rule.repeats:
                    break
                self._note(f"{self._connection.name}: a visit is done again: {'; '.join(repeated)}")
        return with_states(records, before, visit.after)

    def _attempt(
        self,
        visits: VisitRunner,
        request: VisitRequest,
        before: PhoneState,
        rest: Rest,
        attempt: int,
        repeated: tuple[str, ...],
    ) -> tuple[list[Record], PhoneVisit]:
        """One run of a visit, and what is known of it beside its records."""
        pinned = self._pin(request.row.threads, self._bound.get(request.row.id))
        watch = self._watch(pinned, request.row.threads)
        name = f"round {request.visit.round + 1} of {request.row.label}"
        outcome = visits.run(on_phone(request, self._folder), pinned, watch, name=name)
        after = self.state()
        visit = PhoneVisit(
            visit=request.visit.index,
            attempt=attempt,
            repeated_because=(*repeated, *outcome.repeated_because),
            contaminated=contamination(before, after, watch, pinned.cores if pinned.mask.value else None),
            rest=rest,
            pin=pinned,
            allowed_cores=tuple(watch.allowed),
            residency=residency(before, after),
            before=before,
            after=after,
        )
        self.visits.append(visit)
        self._record(visit)
        return outcome.records, visit

    def clean(self) -> None:
        """Remove everything of ours from the phone. `PhoneBusy` when somebody is using it."""
        self._hold.acquire(self._note)
        self._end_leftovers()
        remove_folder(self._connection, self._folder, patience=self._patience)

    @property
    def _cores(self) -> tuple[Core, ...]:
        return self.facts.cores.value or (Core(index=0, online=True),)

    def _pin(self, threads: int, kind: str | None = None) -> Pin:
        if not self._pinned:
            return Pin(cores=(), mask=Reading(reason="not asked for"))
        if self.facts.cores.value is None:
            return Pin(cores=(), mask=Reading(reason=f"cores are not known: {self.facts.cores.reason}"))
        cores = (
            self._cores if kind is None else [c for c in self._cores if c.index in self.core_kinds()[kind]]
        )
        found = pin(self._connection, choose_cores(cores, threads), self._patience)
        if found.mask.value is None:
            self._say_once(f"runs unpinned: {found.mask.reason}")
        return found

    def _watch(self, pinned: Pin, threads: int) -> Watch:
        """What is looked at while a visit runs."""
        return Watch(pinned.cores if pinned.mask.value is not None else ())

    def _record(self, line: PhoneLine) -> None:
        if self._folder_here is not None:
            append_line(self._folder_here, line)

    def _say_once(self, text: str) -> None:
        """What holds for every visit is said at the first one; the records of each have it."""
        if text not in self._said:
            self._said.add(text)
            self._note(f"{self._connection.name}: {text}")

    @contextlib.contextmanager
    def _resumable(self) -> Iterator[None]:
        """When the phone ends the run in here, it is said how to go on: what is done is in the run folder."""
        try:
            yield
        except PhoneError:
            words = ["finet-deploy", "bench", "--device", self._connection.name]
            words += ["--resume", str(self._folder_here)]
            self._note(f"finished rounds are kept; to go on: {visible(shlex.join(words), 1000)}")
            raise
