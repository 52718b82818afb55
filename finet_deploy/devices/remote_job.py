"""A command that runs on the phone by itself: started, left alone, looked at now and then.

The link may go and come back: the job goes on. A file that the job writes last (`rc`, renamed into place) is the only
sign of its end; no exit status of a shell is. From the signs follows one of four verdicts: finished, killed, rebooted,
timeout. The phone ends the job by itself when its time is over, should nobody come back.
"""

from __future__ import annotations

import functools
import hashlib
import re
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from finet_deploy.devices.adb.connection import quote
from finet_deploy.devices.adb.errors import PhoneError, refusal
from finet_deploy.devices.boot import BOOT_COMMANDS, BootMark, boot_mark, booted_since
from finet_deploy.devices.job_script import JOBS, LOOK_SECONDS, discard, end_jobs, end_leftovers, job_script
from finet_deploy.devices.patience import Patience, persist, phase, transient
from finet_deploy.devices.sections import Section, ask

if TYPE_CHECKING:
    from finet_deploy.devices.adb.connection import Connection

__all__ = ["BootMark", "RemoteJob", "Verdict", "booted_since", "end_leftovers"]

START_SECONDS = 20.0  # until the script must have written its process number
GRACE_SECONDS = 15.0  # after its deadline, for the phone's own watchdog
DAMAGED = 9  # exit status of our own command below


@dataclass(frozen=True)
class Verdict:
    """How a job ended. status: the command's exit status, 128 + signal where one killed it; None where nobody knows."""

    kind: Literal["finished", "killed", "rebooted", "timeout"]
    status: int | None = None


class RemoteJob:
    """One detached command. `folder`: the phone's folder of ours; the job gets a fresh folder below it, `self.folder`.

    `command` is a shell command line; `deadline_seconds` after its start the phone kills it. Its own process carries
    the job's folder in its arguments: that is how it is known again. name: what it is, for messages; `reached`: the
    phase that it was last seen in, set by who knows.
    """

    def __init__(
        self,
        connection: Connection,
        folder: str,
        *,
        deadline_seconds: float,
        patience: Patience,
        name: str = "a job",
    ) -> None:
        self._connection, self._patience = connection, patience
        self.id = f"job-{secrets.token_hex(8)}"
        self.folder = f"{folder}/{JOBS}/{self.id}"
        self.name, self.reached = name, ""
        self._deadline = deadline_seconds
        self._started = 0.0
        self._boot = BootMark()

    def start(self, command: str, files: Mapping[str, bytes]) -> None:
        """Put `files` (name -> content) into the job's folder and start `command`. Raises `PhoneError`.

        Files that arrived with another hash are sent once more: a wrong digit in a request would be measured.
        """
        script = job_script(self.folder, command, self._deadline)
        contents = {**files, "job.sh": script.encode("utf-8", "surrogateescape")}
        starting = f"starting {self.name}"
        for _ in range(2):
            hashes = self._send(contents)
            start = functools.partial(self._start, hashes)
            if persist(self._connection, start, self._patience, starting):
                return
        raise PhoneError(
            self._connection.name,
            f"while {starting}: its files arrived damaged, twice",
            do="check the cable and the phone's storage",
        )

    def _send(self, contents: Mapping[str, bytes]) -> dict[str, str]:
        """name -> SHA-256 of what was sent."""
        hashes = {}
        with tempfile.TemporaryDirectory(prefix="finet-deploy-job-") as name:
            local = Path(name) / "content"
            for file, content in contents.items():
                local.write_bytes(content)
                persist(
                    self._connection,
                    lambda: self._connection.push(local, f"{self.folder}/{file}"),  # noqa: B023
                    self._patience,
                    f"sending {self.name}",
                )
                hashes[file] = hashlib.sha256(content).hexdigest()
        return hashes

    def _start(self, hashes: Mapping[str, str]) -> bool:
        """False: the files are damaged. May be done twice: only one of two calls starts it (`mkdir` works once)."""
        whole = " ".join(
            f'case "$(sha256sum < {quote(file)})" in {sha256}*) ;; *) exit {DAMAGED};; esac;'
            for file, sha256 in hashes.items()
        )
        run = f"sh {quote(self.folder)}/job.sh {self.id} >/dev/null 2>&1 </dev/null &"
        start = (
            f"cd {quote(self.folder)} || exit 1; {whole} mkdir started 2>/dev/null || exit 0; "
            "trap '' HUP; "  # inherited: the shell's end may close its terminal before setsid runs
            f"if command -v setsid >/dev/null 2>&1; then setsid {run} else nohup {run} fi"
        )
        answers = ask(self._connection, {**BOOT_COMMANDS, "start": start})
        if answers["start"].status == DAMAGED:
            return False
        if not self._started:
            self._started = time.monotonic()
            self._boot = boot_mark(answers)
        if answers["start"].status != 0:
            raise refusal(self._connection.name, "the job did not start", answers["start"].reason)
        return True

    def wait(
        self,
        *,
        expected_seconds: float = 0.0,
        commands: Callable[[], Mapping[str, str]] = dict,
        watch: Callable[[Mapping[str, Section]], None] = lambda answers: None,
        note: Callable[[str], None] = lambda text: None,
    ) -> Verdict:
        """Look at the job, over a new link each time, until there is a verdict.

        commands: gives what else is asked with the next look; `watch` gets the answers. expected_seconds: no look
        before. note: told when the phone gets out of reach.
        Raises `PhoneGone` and its like when the phone stays away for longer than the job can take.
        """
        # Each look costs the phone some processes: few at first, fewer when it takes long.
        pause = self._patience.poll_seconds
        gone_since: float | None = None
        time.sleep(max(pause, expected_seconds))
        while True:
            try:
                with phase(f"waiting for {self.last_seen}"):
                    self._connection.reconnect()
                    questions = {**self._look_commands(), **commands()}
                    answers = ask(self._connection, questions, timeout=LOOK_SECONDS)
                    verdict = self._judge(answers)
            except PhoneError as error:
                if not transient(error):
                    raise
                now = time.monotonic()
                if gone_since is None:
                    gone_since = now
                    left = max(self._ends_at - now, self._patience.away_seconds)
                    note(
                        f"{error.phone}: out of reach; {self.name} goes on there, waiting up to {left:.0f} s"
                    )
                if now > max(self._ends_at, gone_since + self._patience.away_seconds):
                    raise
            else:
                gone_since = None
                watch(answers)
                if verdict is not None:
                    return verdict
            time.sleep(pause)
            pause = min(self._patience.poll_max_seconds, pause * 1.3)

    @property
    def last_seen(self) -> str:
        """Its name, and the phase if that is known."""
        return self.name + (f", last seen in phase {self.reached}" if self.reached else "")

    @property
    def _ends_at(self) -> float:
        return self._started + self._deadline + GRACE_SECONDS

    def _look_commands(self) -> dict[str, str]:
        folder = quote(self.folder)
        return {
            **BOOT_COMMANDS,
            "rc": f"cat {folder}/rc",
            "deadline": f"if [ -e {folder}/deadline ]; then echo yes; fi",
            "pid": f"cat {folder}/pid",
            "process": f"p=$(cat {folder}/pid 2>/dev/null) && cat /proc/$p/cmdline",
        }

    def _judge(self, answers: Mapping[str, Section]) -> Verdict | None:
        """None: it goes on."""
        ended = _ended(answers)
        if ended is not None:
            return ended
        elapsed = time.monotonic() - self._started
        if booted_since(self._boot, boot_mark(answers), elapsed):
            return _ended(self._look_again()) or Verdict("rebooted")
        alive = self.id.encode() in answers["process"].stdout
        has_begun = answers["pid"].stdout.strip().isdigit() or elapsed > START_SECONDS
        if has_begun and not alive:
            return _ended(self._look_again()) or Verdict("killed")  # it may have ended between two looks
        if time.monotonic() > self._ends_at:
            self.stop()
            return Verdict("timeout")
        return None

    def _look_again(self) -> Mapping[str, Section]:
        return ask(self._connection, self._look_commands())

    def command_in_process(self, command: str) -> str:
        """A command about the job's process, `$r` being its number; fails when it has none."""
        return f"r=$(cat {quote(self.folder)}/runner) && {command}"

    def log_tail(self, max_bytes: int = 4000) -> str:
        """The job's last words, stdout and stderr together."""
        command = f"tail -c {max_bytes} {quote(self.folder)}/log"
        result = persist(
            self._connection,
            lambda: self._connection.shell(command),
            self._patience,
            f"collecting {self.name}",
        )
        return result.stdout[-max_bytes:].decode("utf-8", "replace")

    def stop(self, patience: Patience | None = None) -> None:
        """End the job's processes, also those that are about to begin. Nothing happens when it has none."""
        persist(
            self._connection,
            lambda: end_jobs(self._connection, {self.id: self.folder}),
            patience or self._patience,
            f"ending {self.name}",
        )

    def remove(self, patience: Patience | None = None) -> None:
        """Remove the job's folder."""
        persist(
            self._connection,
            lambda: discard(self._connection, self.folder),
            patience or self._patience,
            f"removing {self.name}",
        )


def _ended(answers: Mapping[str, Section]) -> Verdict | None:
    """The exit status is the first word: longer ones' last digits may follow, the room was taken beforehand."""
    status = re.match(rb"(\d{1,3})\n", answers["rc"].stdout)
    if status is None:
        return None
    if b"yes" in answers["deadline"].stdout:
        return Verdict("timeout", int(status[1]))
    return Verdict("finished", int(status[1]))
