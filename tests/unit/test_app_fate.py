"""What a phone tells of an app's end, as samples have it: made by hand after AOSP's sources, not recorded by us."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finet_deploy.devices.adb.errors import PhoneNoSpace
from finet_deploy.devices.app.am_answers import is_refusal, refused_start
from finet_deploy.devices.app.fate import (
    FATE_COMMANDS,
    cause_of,
    crash_words,
    exits_since,
    killed_by_log,
)
from finet_deploy.devices.app.pm_answers import (
    EXPLAINED,
    AppRefused,
    installed_listing,
    refused_install,
    succeeded,
)
from finet_deploy.devices.sections import Section

SINCE = "2026-10-01 19:00:00"
PROCESS = "org.finetdeploy.app:visit"


def exit_info(*entries: tuple[str, str, int, str, str]) -> str:
    text = "ACTIVITY MANAGER PROCESS EXIT INFO (dumpsys activity exit-info)\n  package: org.finetdeploy.app\n"
    for number, (time, process, code, reason, rest) in enumerate(entries):
        text += f"        ApplicationExitInfo #{number}:\n          timestamp={time} pid=3421 realUid=10196 user=0\n"
        text += f"          process={process} reason={code} ({reason}) subreason=0 (UNKNOWN) status=0\n"
        text += f"          importance=300 pss=0.00 rss=0.00 {rest}\n"
    return text


def told(**texts: str) -> dict[str, Section]:
    return {name: Section(texts.get(name, "").encode(), b"", 0) for name in FATE_COMMANDS}


def crash(process: str, message: str, time: str = "10-01 19:30:00.100") -> str:
    head = f"{time}  4242  4260 E AndroidRuntime: "
    return (
        f"{head}FATAL EXCEPTION: finet-visit\n{head}Process: {process}, PID: 4242\n{head}{message}\n"
        f"{head}\tat org.finetdeploy.core.visit.Visit.run(Visit.java:1)\n{head}Caused by: x: y\n"
    )


def test_the_newest_end_of_the_visits_own_process_since_it_began_counts():
    text = exit_info(
        (
            "2026-10-01 19:21:57.535",
            "org.finetdeploy.app",
            4,
            "APP CRASH(EXCEPTION)",
            "description=crash state=empty",
        ),
        ("2026-10-01 19:20:00.000", PROCESS, 3, "LOW_MEMORY", "description=null state=empty trace=null"),
        ("2026-10-01 19:10:00.000", PROCESS, 6, "ANR", "description=executing service x state=empty"),
        ("2026-10-01 18:59:59.999", PROCESS, 16, "PACKAGE UPDATED", "description=old state=empty"),
    )
    found = exits_since(text, SINCE)
    assert [(item.code, item.reason, item.description) for item in found] == [
        (3, "LOW_MEMORY", ""),
        (6, "ANR", "executing service x"),
    ]
    assert "for memory" in cause_of(told(exits=text), SINCE).reason
    assert cause_of(told(exits=text), "2026-10-01 19:30:00") is None


def test_a_description_on_a_line_of_its_own_is_read_too():
    text = exit_info(
        (
            "2026-10-01 19:21:57.535",
            PROCESS,
            16,
            "PACKAGE UPDATED",
            "state=empty trace=null\n description=stop it",
        )
    )
    cause = cause_of(told(exits=text), SINCE)
    assert cause.again and "stop it" in cause.reason


@pytest.mark.parametrize(
    ("code", "again", "taken"),
    [
        (3, False, True),
        (6, False, False),
        (8, True, True),
        (10, False, True),
        (15, True, True),
        (16, True, True),
    ],
)
def test_what_may_go_well_a_second_time_is_tried_again(code, again, taken):
    text = exit_info(("2026-10-01 19:21:57.535", PROCESS, code, "X", "description=null state=empty"))
    cause = cause_of(told(exits=text), SINCE)
    assert (cause.again, cause.taken) == (again, taken)


def test_a_crash_is_told_in_its_own_words_and_another_apps_is_not():
    ours = crash(PROCESS, "java.lang.IllegalStateException: boom")
    theirs = crash("com.example", "java.lang.Error: theirs")
    old = crash(PROCESS, "java.lang.Error: old", "10-01 18:00:00.000")
    assert crash_words(old + ours + theirs, SINCE) == "java.lang.IllegalStateException: boom"
    assert crash_words(old + theirs, SINCE) is None
    main = crash("org.finetdeploy.app", "java.lang.Error: of the activity")
    assert crash_words(main, SINCE) is None


def test_a_native_crash_has_its_signal_and_abort_message():
    head = "10-01 19:30:00.100  4242  4260 F DEBUG   : "
    text = (
        f"{head}pid: 4242, tid: 4260, name: finet-visit  >>> {PROCESS} <<<\n"
        f"{head}signal 6 (SIGABRT), code -1 (SI_QUEUE), fault addr --------\n{head}Abort message: 'bad tensor'\n"
    )
    assert crash_words(text, SINCE) == (
        "native crash, signal 6 (SIGABRT), code -1 (SI_QUEUE), fault addr --------, Abort message: 'bad tensor'"
    )


def test_older_phones_tell_it_in_the_event_log():
    line = "10-01 19:30:00.100  1000  1020 I "
    assert "ANR" in killed_by_log(f"{line}am_anr  : [0,42,{PROCESS},1,executing]\n", SINCE).reason
    assert killed_by_log(f"{line}am_anr  : [0,42,com.example,1,executing]\n", SINCE) is None
    killed = killed_by_log(f"{line}am_kill : [0,42,{PROCESS},900,empty #17,204800]\n", SINCE)
    assert "empty #17" in killed.reason and killed.taken
    assert "empty #17" in killed_by_log(f"{line}am_kill : [0,42,{PROCESS},900,empty #17]\n", SINCE).reason


@given(st.text(max_size=400) | st.binary(max_size=400).map(lambda data: data.decode("utf-8", "replace")))
def test_whatever_a_phone_says_is_read_or_left(text):
    mixed = exit_info(("2026-10-01 19:21:57.535", PROCESS, 4, "X", text)) + text
    cause = cause_of(told(exits=mixed, crash=crash(PROCESS, text) + text, events=text, words=text), SINCE)
    assert cause is None or (cause.reason and "\n" not in cause.reason)
    refused_start(text)
    refused_install("phone", text.encode("utf-8", "replace"))
    assert all(line.startswith("package:/") for line in installed_listing(text.encode("utf-8", "replace")))


@pytest.mark.parametrize("code", [code for code, _, _ in EXPLAINED])
def test_every_code_has_a_meaning_and_a_next_step(code):
    error = refused_install("phone-1", f"Failure [{code}: some words]".encode())
    assert isinstance(error, AppRefused)
    assert code in str(error) and "phone-1" in str(error)
    assert error.do and error.do != AppRefused.remedy


def test_a_full_phone_is_told_in_both_of_its_wordings():
    for text in (
        b"Failure [INSTALL_FAILED_INSUFFICIENT_STORAGE]",
        b"IOException: Requested internal only, but not enough space",
    ):
        assert isinstance(refused_install("phone", text), PhoneNoSpace)


def test_what_starts_nothing_is_told_from_what_starts():
    assert not is_refusal("Starting service: Intent { cmp=org.finetdeploy.app/.VisitService (has extras) }\n")
    assert is_refusal("Starting service: Intent { x }\nError: Not found; no service started.\n")
    assert is_refusal("\nException occurred while executing 'start-foreground-service':\n")


def test_only_a_line_of_its_own_is_success():
    assert succeeded(b"Performing Install\nSuccess\n") and succeeded(b"Success\r\n")
    assert not succeeded(b"Failure [Success]\n") and not succeeded(b"NoSuccess\n")


def test_a_listing_that_is_no_path_is_none():
    good = b"package:/data/app/~~x==/org.finetdeploy.app-y==/base.apk\n"
    assert installed_listing(good) == (good.decode().strip(),)
    for bad in (b"", b"Error: x", b"package:/data/../etc/x", b"package:/a$(touch x)", b"package:relative"):
        assert installed_listing(bad) == ()
