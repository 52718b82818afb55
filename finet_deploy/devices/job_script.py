"""The script that runs a job on the phone, and how a job is ended from here whatever it is doing."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from finet_deploy.devices.adb.connection import quote
from finet_deploy.devices.adb.errors import PhoneTimeout, refusal
from finet_deploy.devices.patience import Patience, persist
from finet_deploy.devices.sections import Section, ask

if TYPE_CHECKING:
    from finet_deploy.devices.adb.connection import Connection

__all__ = ["JOBS", "LOOK_SECONDS", "discard", "end_jobs", "end_leftovers", "job_script"]

JOBS = "jobs"
ID = re.compile(r"job-[0-9a-f]{16}")
LOOK_SECONDS = 15.0  # for an answer: a silent link is made anew
KILL_SECONDS = 10.0  # for a process to be gone after SIGKILL
PAUSE_SECONDS = 0.1
EXEC_LOOKS = 5
REMOVE_SECONDS = 60.0
WATCHDOG_STEP_SECONDS = 10
MAX_FILE_BLOCKS = (
    131072  # 64 MiB in blocks of 512 bytes: a runner that writes without end does not fill the phone
)
MAX_LEFTOVERS = 64

# {..} are filled in by job_script. setsid gave the script a process group of its own: its last line ends the watchdog
# too. The watchdog sleeps in short steps, so that a sleep that outlives a killed job, and has no name of ours, ends
# soon. Who ends a job writes `stop` or takes the folder away, and only then looks for `pid`; the script does it the
# other way round: one of the two sees the other, at whatever moment. The room for the exit status is taken at the
# start: a full phone can still tell it.
SCRIPT = """\
cd {folder} || exit 1
echo $$ > pid.tmp && mv -f pid.tmp pid || exit 1
[ -e {folder}/pid ] && [ ! -e stop ] || exit 1
export HOME={folder} TMPDIR={folder}
ulimit -c 0 2>/dev/null
ulimit -f {blocks} 2>/dev/null
echo 000 > rc.tmp || exit 1
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
echo $s 1<> rc.tmp && mv -f rc.tmp rc
kill -9 -$$
"""


def job_script(folder: str, command: str, seconds: float) -> str:
    """The script of the job in `folder`: runs the shell command line `command`, for `seconds` at most."""
    return SCRIPT.format(
        folder=quote(folder),
        command=command,
        seconds=max(1, round(seconds)),
        step=WATCHDOG_STEP_SECONDS,
        blocks=MAX_FILE_BLOCKS,
    )


def end_leftovers(connection: Connection, folder: str, *, patience: Patience) -> int:
    """End what jobs of an earlier run left running, and remove their folders. How many were running.

    The caller holds the phone's lock.
    """
    jobs = f"{folder}/{JOBS}"

    def tidy() -> int:
        listed = connection.list(jobs)
        ids = [name for name in listed if ID.fullmatch(name)][:MAX_LEFTOVERS]
        ended = end_jobs(connection, {id: f"{jobs}/{id}" for id in ids})
        discard(connection, jobs)
        return ended

    return persist(connection, tidy, patience, "ending what an earlier run left")


def discard(connection: Connection, folder: str) -> None:
    """Remove a folder of jobs from the phone: out of the way first, so that nothing begins in it meanwhile.

    What was killed a moment ago may still have had its last file under way: it is tried once more.
    """
    gone = quote(f"{folder}.gone")
    command = (
        f"mv {quote(folder)} {gone} 2>/dev/null; "
        f"rm -rf {gone} {quote(folder)} 2>/dev/null || {{ sleep 1; rm -rf {gone} {quote(folder)}; }}"
    )
    result = connection.shell(command, timeout=REMOVE_SECONDS)
    if result.status != 0:
        raise refusal(connection.name, "a job's folder cannot be removed", result.stderr or result.stdout)


def end_jobs(connection: Connection, folders: Mapping[str, str]) -> int:
    """End the jobs (id -> folder), also those that are just about to begin. How many had processes.

    A process is killed only when its command line still names the job: numbers recur. Raises `PhoneTimeout` when one
    outlives that.
    """
    if not folders:
        return 0
    commands = {}
    for id, folder in folders.items():
        commands[f"{id}.pid"] = f"touch {quote(folder)}/stop 2>/dev/null; cat {quote(folder)}/pid"
        commands[f"{id}.runner"] = f"cat {quote(folder)}/runner"
    numbers = {}
    for name, answer in ask(connection, commands, timeout=LOOK_SECONDS).items():
        text = answer.stdout.strip()
        if re.fullmatch(rb"\d{1,9}", text) and int(text) > 1:
            numbers[name] = int(text)
    ours = _ours(connection, numbers)
    if not ours:
        return 0
    # The script's number is also its group's, which holds the runner and the watchdog.
    kills = [f"kill -9 -{numbers[name]}; kill -9 {numbers[name]}" for name in ours]
    connection.shell("{ " + "; ".join(kills) + "; } 2>/dev/null; true", timeout=LOOK_SECONDS)
    deadline = time.monotonic() + KILL_SECONDS
    while any(_names_its_job(answer, name) for name, answer in _lines(connection, numbers, ours).items()):
        if time.monotonic() > deadline:
            what = "a process of ours could not be killed"
            raise PhoneTimeout(connection.name, what, do="restart the phone")
        time.sleep(PAUSE_SECONDS)
    return len({name.partition(".")[0] for name in ours})


def _ours(connection: Connection, numbers: Mapping[str, int]) -> list[str]:
    """Those whose command line names their job. In the middle of an exec a process has none: it is looked at again."""
    for _ in range(EXEC_LOOKS):
        lines = _lines(connection, numbers, list(numbers)) if numbers else {}
        if not any(answer.status == 0 and not answer.stdout for answer in lines.values()):
            break
        time.sleep(PAUSE_SECONDS)
    return [name for name, answer in lines.items() if _names_its_job(answer, name)]


def _lines(connection: Connection, numbers: Mapping[str, int], names: Sequence[str]) -> dict[str, Section]:
    commands = {name: f"cat /proc/{numbers[name]}/cmdline" for name in names}
    return ask(connection, commands, timeout=LOOK_SECONDS)


def _names_its_job(answer: Section, name: str) -> bool:
    return name.partition(".")[0].encode() in answer.stdout
