"""Why the app's process ended: from the phone's own records, never guessed.

Asked only after a visit that failed. `dumpsys activity exit-info` (Android 11 and later) has the reason, logcat's
buffers have the words of a crash, and what older phones tell. The formats are from AOSP's sources and other projects'
samples; none was recorded by us.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from finet_deploy.devices.adb.errors import visible
from finet_deploy.devices.app.names import PACKAGE, PROCESS
from finet_deploy.devices.sections import Section

__all__ = ["FATE_COMMANDS", "Cause", "Exit", "cause_of", "crash_words", "exits_since", "killed_by_log"]

SINCE = "since"  # the file with the phone's clock when the visit began
FATE_COMMANDS = {
    "exits": f"dumpsys activity exit-info {PACKAGE}",
    "crash": "logcat -d -b crash -t 300",
    "events": "logcat -d -b events -t 2000 | grep -E ' am_(anr|crash|kill|proc_died|low_memory)'",
    "words": "logcat -d -b main -t 500 -s finet-bench:E",
}
MAX_TEXT = 1 << 20
EXIT = re.compile(
    r"timestamp=(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\S*\s+pid=(?P<pid>\d+)\b[^\n]*\n"
    r"\s*process=(?P<process>\S+)\s+reason=(?P<code>\d+) \((?P<reason>[^\n]*?)\)\s+subreason=[^\n]*\n?"
    r"(?P<rest>(?:(?!\s*ApplicationExitInfo)[^\n]*\n?){0,3})"
)
LINE = re.compile(r"^(\d\d-\d\d \d\d:\d\d:\d\d)\.\d+\s+(?:\d+\s+)+[VDIWEF]\s+(\S+?)\s*:\s?(.*)$")

CRASH, NATIVE_CRASH, ANR, LOW_MEMORY, PERMISSION, USER, USER_STOPPED, PACKAGE_STATE, UPDATED = (
    4, 5, 6, 3, 8, 10, 11, 15, 16
)  # fmt: skip
OWN_END = (1, 2)  # it ended itself, or was killed by a signal: the log's words say more
UNLOCK = "unlock the phone, keep its screen on, and measure again"


@dataclass(frozen=True)
class Cause:
    """reason: for a person, with what to do. again: the visit may go well a second time, once the app is put right.

    taken: the phone ended it, which says nothing of the network.
    """

    reason: str
    again: bool = False
    taken: bool = False


@dataclass(frozen=True)
class Exit:
    """One entry of the phone's history of ended processes. time: by its clock, seconds."""

    time: str
    pid: int
    code: int
    reason: str
    description: str


REASONS: Mapping[int, Cause] = {
    LOW_MEMORY: Cause(
        "the phone killed the app for memory; close other apps and measure again", again=False, taken=True
    ),
    ANR: Cause(
        "the app stopped responding (ANR) and the phone ended it; let the phone rest, close other apps, measure again"
    ),
    PERMISSION: Cause(
        "a permission of the app was changed while it ran, which ends it", again=True, taken=True
    ),
    USER: Cause("somebody closed the app on the phone; leave it alone while it measures", taken=True),
    USER_STOPPED: Cause("the phone's user was stopped or switched while it ran", taken=True),
    PACKAGE_STATE: Cause("the app was disabled or changed while it ran", again=True, taken=True),
    UPDATED: Cause("the app was updated while it ran, which ends it", again=True, taken=True),
}


def exits_since(text: str, since: str) -> list[Exit]:
    """The ends of the visit's process at or after `since`, newest first."""
    found = []
    for match in EXIT.finditer(text[:MAX_TEXT]):
        if match["process"] != PROCESS or match["time"] < since:
            continue
        description = re.search(r"description=([^\n]*?)(?:\s+state=|\n|$)", match["rest"])
        words = visible(description[1]) if description and description[1] != "null" else ""
        code, pid = int(match["code"][:4]), int(match["pid"][:9])
        found.append(Exit(match["time"], pid, code, visible(match["reason"], 40), words))
    return sorted(found, key=lambda item: item.time, reverse=True)


def crash_words(text: str, since: str) -> str | None:
    """What the last crash of the visit's process said, in one line; None without one at or after `since`.

    since: `YYYY-MM-DD HH:MM:SS`; logcat's lines have no year.
    """
    words: str | None = None
    ours = False
    for tag, message in _lines(text, since):
        if tag == "AndroidRuntime":
            if message.startswith("FATAL EXCEPTION"):
                ours = False
            elif message.startswith("Process: "):
                ours = message.startswith(f"Process: {PROCESS},")
            elif ours and not message.startswith(("\t", " ", "at ")) and not message.startswith("Caused by"):
                words, ours = message, False
        elif tag == "DEBUG":
            if ">>> " in message:
                ours = f">>> {PROCESS} <<<" in message
            elif ours and message.startswith("signal "):
                words = f"native crash, {message}"
            elif ours and message.startswith("Abort message: "):
                words = f"{words}, {message}"
    return visible(words) if words is not None else None


def killed_by_log(text: str, since: str) -> Cause | None:
    """What the event log of phones before Android 11 tells: an ANR, or whose kill it was."""
    for tag, message in _lines(text, since):
        if PROCESS not in message:
            continue
        if tag == "am_anr":
            return REASONS[ANR]
        if tag == "am_kill":
            reason = visible(message.strip("[]").split(",")[-1 if message.count(",") < 5 else 4], 80)
            return Cause(f"the phone ended the app: {reason}", taken=True)
    return None


def cause_of(answers: Mapping[str, Section], since: str) -> Cause | None:
    """Why the process is not there, from the answers to `FATE_COMMANDS`; None when the phone does not tell."""
    text = {name: answer.stdout[:MAX_TEXT].decode("utf-8", "replace") for name, answer in answers.items()}
    exits = exits_since(text["exits"], since)
    last = exits[0] if exits else None
    if last is not None and last.code in REASONS:
        known = REASONS[last.code]
        said = f" (the phone says: {last.description})" if last.description else ""
        return Cause(known.reason + said, again=known.again, taken=known.taken)
    words = crash_words(text["crash"], since)
    if words is not None or (last is not None and last.code in (CRASH, NATIVE_CRASH)):
        what = words or (last.description if last is not None else "") or "no word in the log"
        if "ForegroundServiceStartNotAllowed" in what or "app is in background" in what:
            return Cause(f"the phone lets nothing start while it is locked: {what}; {UNLOCK}")
        if "OutOfMemoryError" in what:
            return Cause(
                f"the app ran out of memory: {what}; measure a smaller network, or on a larger phone"
            )
        return Cause(f"the app crashed: {what}; `adb logcat -d -b crash` has the whole of it")
    known_by_log = killed_by_log(text["events"], since)
    if known_by_log is not None:
        return known_by_log
    if last is not None and last.code not in OWN_END:
        return Cause(f"the phone ended the app: {last.reason} {last.description}".rstrip(), taken=True)
    spoken = [message for tag, message in _lines(text["words"], since) if tag == "finet-bench"]
    return Cause(f"the app says: {visible(spoken[-1])}") if spoken else None


def _lines(text: str, since: str) -> Iterator[tuple[str, str]]:
    """(tag, message) of logcat's lines at or after `since`."""
    for line in text[:MAX_TEXT].splitlines():
        match = LINE.match(line)
        if match is not None and match[1] >= since[5:]:
            yield match[2], match[3]
