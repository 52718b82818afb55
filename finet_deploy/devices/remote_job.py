"""A command that runs on the phone by itself: started, left alone, looked at now and then.

The link may go and come back: the job goes on. A file that the job writes last (`rc`, renamed into place) is the only
sign of its end; no exit status of a shell is. From the signs follows one of four verdicts: finished, killed, rebooted,
timeout. The phone ends the job by itself when its time is over, should nobody come back.
"""

from __future__ import annotations

import re
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from finet_deploy.devices.adb.connection import quote
from finet_deploy.devices.adb.errors import PhoneTimeout, refusal
from finet_deploy.devices.patience import TRANSPORT, Patience, persist, phase
from finet_deploy.devices.sections import Section, ask

if TYPE_CHECKING:
    from finet_deploy.devices.adb.connection import Connection

__all__ = ["BootMark", "RemoteJob", "Verdict", "booted_since", "end_leftovers"]

JOBS = "jobs"
ID = re.compile(r"job-[0-9a-f]{16}")
START_SECONDS = 20.0  # until the script must have written its process number
KILL_SECONDS = 10.0
LOOK_SECONDS = 15.0  # for an answer: a silent link is made anew
WATCHDOG_STEP_SECONDS = 10
GRACE_SECONDS = 15.0  # after its deadline, for the phone's own watchdog
UPTIME_SLACK_SECONDS = 10.0
MAX_FILE_BLOCKS = (
    131072  # 64 MiB in blocks of 512 bytes: a runner that writes without end does not fill the phone
)
MAX_LEFTOVERS = 64

# {..} are filled in by _script. setsid gave the script a process group of its own: its last line ends the watchdog too.
# The watchdog sleeps in short steps, so that a sleep that outlives a killed job, and has no name of ours, ends soon.
SCRIPT = """\
cd {folder} || exit 1
echo $$ > pid.tmp && mv -f pid.tmp pid || exit 1
export HOME={folder} TMPDIR={folder}
ulimit -c 0 2>/dev/null
ulimit -f {blocks} 2>/dev/null
( {command}
) > log 2>&1 < /dev/null &
r=$!
echo $r > runner.tmp && mv -f runner.tmp runner
( n={seconds}
  while [ $n -gt 0 ]; do
    if [ $n -gt {step} ]; then s={step}; else s=$n; fi
    sleep $s; n=$((n-s)); kill -0 $$ || exit
  done
  : > deadline; kill -9 $r ) > /dev/null 2>&1 < /dev/null &
wait $r
s=$?
echo $s > rc.tmp && mv -f rc.tmp rc
kill -9 -$$
"""


@dataclass(frozen=True)
class Verdict:
    """How a job ended. status: the command's exit status, 128 + signal where one killed it; None where nobody knows."""

    kind: Literal["finished", "killed", "rebooted", "timeout"]
    status: int | None = None


@dataclass(frozen=True)
class BootMark:
    """What tells one boot of a phone from the next. Either may be unreadable."""

    boot_id: str | None = None
    uptime: float | None = None


def booted_since(then: BootMark, now: BootMark, elapsed: float) -> bool:
    """Whether the phone was started anew between two marks that lie `elapsed` seconds apart by our clock.

    The kernel's boot id decides where both marks have it; otherwise an uptime that lags behind. Without either: no.
    """
    if then.boot_id and now.boot_id:
        return then.boot_id != now.boot_id
    if then.uptime is None or now.uptime is None:
        return False
    return now.uptime < then.uptime + elapsed - UPTIME_SLACK_SECONDS


class RemoteJob:
    """One detached command. `folder`: the phone's folder of ours; the job gets a fresh folder below it, `self.folder`.

    `command` is a shell command line; `deadline_seconds` after its start the phone kills it. Its own process carries
    the job's folder in its arguments: that is how it is known again.
    """

    def __init__(
        self, connection: Connection, folder: str, *, deadline_seconds: float, patience: Patience
    ) -> None:
        self._connection, self._patience = connection, patience
        self.id = f"job-{secrets.token_hex(8)}"
        self.folder = f"{folder}/{JOBS}/{self.id}"
        self._deadline = deadline_seconds
        self._started = 0.0
        self._boot = BootMark()

    def start(self, command: str, files: Mapping[str, bytes]) -> None:
        """Put `files` (name -> content) into the job's folder and start `command`. Raises `PhoneError`."""
        script = _script(self.folder, command, self._deadline)
        with tempfile.TemporaryDirectory(prefix="finet-deploy-job-") as name:
            for file, content in {**files, "job.sh": script.encode("utf-8", "surrogateescape")}.items():
                local = Path(name) / "content"
                local.write_bytes(content)
                persist(
                    self._connection,
                    lambda: self._connection.push(local, f"{self.folder}/{file}"),  # noqa: B023
                    self._patience,
                    "sending a job",
                )
        persist(self._connection, self._start, self._patience, "starting a job")

    def _start(self) -> None:
        """May be done twice: only one of two calls starts the job (`mkdir` makes a folder once)."""
        run = f"sh {quote(self.folder)}/job.sh {self.id} >/dev/null 2>&1 </dev/null &"
        start = (
            f"cd {quote(self.folder)} || exit 1; mkdir started 2>/dev/null || exit 0; "
            "trap '' HUP; "  # inherited: the shell's end may close its terminal before setsid runs
            f"if command -v setsid >/dev/null 2>&1; then setsid {run} else nohup {run} fi"
        )
        answers = ask(self._connection, {**_BOOT_COMMANDS, "start": start})
        if not self._started:
            self._started = time.monotonic()
            self._boot = _boot_mark(answers)
        if answers["start"].status != 0:
            raise refusal(self._connection.name, "the job did not start", answers["start"].reason)

    def wait(
        self,
        *,
        expected_seconds: float = 0.0,
        commands: Callable[[], Mapping[str, str]] = dict,
        watch: Callable[[Mapping[str, Section]], None] = lambda answers: None,
    ) -> Verdict:
        """Look at the job, over a new link each time, until there is a verdict.

        commands: gives what else is asked with the next look; `watch` gets the answers. expected_seconds: no look
        before.
        Raises `PhoneGone` and its like when the phone stays away for longer than the job can take.
        """
        # Each look costs the phone some processes: few at first, fewer when it takes long.
        pause = self._patience.poll_seconds
        gone_since: float | None = None
        time.sleep(max(pause, expected_seconds))
        while True:
            try:
                with phase("waiting for a job"):
                    self._connection.reconnect()
                    questions = {**self._look_commands(), **commands()}
                    answers = ask(self._connection, questions, timeout=LOOK_SECONDS)
                    verdict = self._judge(answers)
            except TRANSPORT:
                now = time.monotonic()
                gone_since = now if gone_since is None else gone_since
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
    def _ends_at(self) -> float:
        return self._started + self._deadline + GRACE_SECONDS

    def _look_commands(self) -> dict[str, str]:
        folder = quote(self.folder)
        return {
            **_BOOT_COMMANDS,
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
        if booted_since(self._boot, _boot_mark(answers), elapsed):
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
            self._connection, lambda: self._connection.shell(command), self._patience, "reading a job's log"
        )
        return result.stdout[-max_bytes:].decode("utf-8", "replace")

    def stop(self, patience: Patience | None = None) -> None:
        """End the job's processes. Nothing happens when it has none."""
        persist(
            self._connection,
            lambda: _end(self._connection, {self.id: self.folder}),
            patience or self._patience,
            "ending a job",
        )

    def remove(self, patience: Patience | None = None) -> None:
        """Remove the job's folder."""
        command = f"rm -rf {quote(self.folder)}"
        persist(
            self._connection,
            lambda: self._connection.shell(command, timeout=LOOK_SECONDS),
            patience or self._patience,
            "removing a job",
        )


def end_leftovers(connection: Connection, folder: str, *, patience: Patience) -> int:
    """End what jobs of an earlier run left running, and remove their folders. How many were running.

    The caller holds the phone's lock.
    """
    jobs = f"{folder}/{JOBS}"

    def tidy() -> int:
        listed = connection.list(jobs)
        ids = [name for name in listed if ID.fullmatch(name)][:MAX_LEFTOVERS]
        ended = _end(connection, {id: f"{jobs}/{id}" for id in ids})
        result = connection.shell(f"rm -rf {quote(jobs)}", timeout=60.0)
        if result.status != 0:
            raise refusal(connection.name, "old jobs cannot be removed", result.stderr)
        return ended

    return persist(connection, tidy, patience, "ending what an earlier run left")


def _end(connection: Connection, folders: Mapping[str, str]) -> int:
    """Kill the processes of jobs (id -> folder), each only when its command line still names the job: numbers recur."""
    if not folders:
        return 0
    files = {
        f"{id}.{kind}": f"cat {quote(folder)}/{kind}"
        for id, folder in folders.items()
        for kind in ("pid", "runner")
    }
    numbers = {}
    for name, answer in ask(connection, files, timeout=LOOK_SECONDS).items():
        text = answer.stdout.strip()
        if re.fullmatch(rb"\d{1,9}", text) and int(text) > 1:
            numbers[name] = int(text)
    if not numbers:
        return 0
    lines = ask(
        connection,
        {name: f"cat /proc/{number}/cmdline" for name, number in numbers.items()},
        timeout=LOOK_SECONDS,
    )
    ours = [name for name in numbers if name.partition(".")[0].encode() in lines[name].stdout]
    # The script's number is also its group's, which holds the runner and the watchdog.
    kills = [f"kill -9 -{numbers[name]}; kill -9 {numbers[name]}" for name in ours]
    if kills:
        connection.shell("{ " + "; ".join(kills) + "; } 2>/dev/null; true")
        still = ask(connection, {name: f"cat /proc/{numbers[name]}/cmdline" for name in ours})
        if any(name.partition(".")[0].encode() in still[name].stdout for name in ours):
            raise PhoneTimeout(
                connection.name, "a process of ours could not be killed", do="restart the phone"
            )
    return len({name.partition(".")[0] for name in ours})


_BOOT_COMMANDS = {
    "boot_id": "cat /proc/sys/kernel/random/boot_id",
    "uptime": "cat /proc/uptime",
}


def _boot_mark(answers: Mapping[str, Section]) -> BootMark:
    boot_id = re.fullmatch(rb"([0-9a-f-]{36})\s*", answers["boot_id"].stdout.strip())
    uptime = re.match(rb"\s*(\d{1,12}(?:\.\d{1,9})?)\s", answers["uptime"].stdout + b"\n")
    return BootMark(boot_id[1].decode() if boot_id else None, float(uptime[1]) if uptime else None)


def _ended(answers: Mapping[str, Section]) -> Verdict | None:
    status = re.fullmatch(rb"(\d{1,3})", answers["rc"].stdout.strip())
    if status is None:
        return None
    if b"yes" in answers["deadline"].stdout:
        return Verdict("timeout", int(status[1]))
    return Verdict("finished", int(status[1]))


def _script(folder: str, command: str, seconds: float) -> str:
    return SCRIPT.format(
        folder=quote(folder),
        command=command,
        seconds=max(1, round(seconds)),
        step=WATCHDOG_STEP_SECONDS,
        blocks=MAX_FILE_BLOCKS,
    )
