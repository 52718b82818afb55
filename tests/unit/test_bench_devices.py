"""`bench` on several devices: a process each, whose command line is this one but for device and folder."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finet_deploy.api import devices
from finet_deploy.api.devices import device_folder, device_names, measure_each
from finet_deploy.commands.bench import command
from finet_deploy.commands.console import Console
from finet_deploy.errors import FinetDeployError
from tests.cli import FAILED, error_line


def caught_lines(monkeypatch):
    caught = {}

    def pretend(commands, listener):
        caught.update(commands)
        return dict.fromkeys(commands, 1)

    monkeypatch.setattr(devices, "measure_each", pretend)
    return caught


def test_each_device_gets_every_option_of_this_command_line(capsys, tmp_path, monkeypatch):
    caught = caught_lines(monkeypatch)
    options = ["--preset", "demo", "--threads", 2, "--runtimes", "executorch", "--unpinned", "--emulated"]
    options += ["--runner", "app", "--apk", tmp_path / "app.apk"]
    names = ["--device", "A1", "--device", "tcp:10.0.0.2:5555"]
    line = error_line(capsys, FAILED, "bench", "x=one", "two", *names, *options, "-o", tmp_path / "run")
    assert "no device was measured" in line
    assert list(caught) == ["A1", "tcp:10.0.0.2:5555"]
    for (name, words), folder in zip(caught.items(), ("A1", "tcp-10-0-0-2-5555")):
        given_ = command.make_context("bench", words[1:]).params
        expected = {"bundles": ("x=one", "two"), "devices": (name,), "output": tmp_path / "run" / folder}
        expected |= {"preset": "demo", "threads": 2, "runtimes": "executorch", "unpinned": True}
        expected |= {"emulated": True, "clean": False, "resume": None, "suite": None}
        expected |= {"runner": "app", "apk": tmp_path / "app.apk"}
        assert {key: given_[key] for key in expected} == expected


def test_several_devices_resume_each_in_its_own_folder(capsys, tmp_path, monkeypatch):
    caught = caught_lines(monkeypatch)
    error_line(capsys, FAILED, "bench", "--resume", tmp_path, "--device", "A1", "--device", "B2")
    assert [words[3:5] for words in caught.values()] == [
        ["--resume", str(tmp_path / "A1")],
        ["--resume", str(tmp_path / "B2")],
    ]


def test_a_device_that_fails_does_not_stop_the_others_and_words_carry_the_devices_name(capsys):
    commands = {"good": ["--version"], "bad": ["bench", "--threads", "none"]}
    assert measure_each(commands, Console()) == {"good": 0, "bad": 2}
    err = capsys.readouterr().err
    assert "warning: bad: finet-deploy: error: " in err
    assert "good: warning" not in err


@given(st.text(min_size=1, max_size=60))
def test_a_devices_folder_is_one_step_below_the_runs(name):
    folder = device_folder(Path("runs/x"), name)
    assert folder.parent == Path("runs/x")
    assert folder.name not in ("", ".", "..")


def test_all_phones_are_those_that_are_ready_and_the_others_are_told(capsys, monkeypatch):
    from finet_deploy.devices import adb

    phones = [
        adb.FoundPhone(serial="A1", state="device"),
        adb.FoundPhone(serial="B2", state="unauthorized"),
    ]
    monkeypatch.setattr(adb, "find_phones", lambda **_: phones)
    assert device_names(["all"], Console()) == ("A1",)
    assert "warning: B2 is unauthorized" in capsys.readouterr().err
    monkeypatch.setattr(adb, "find_phones", lambda **_: phones[1:])
    with pytest.raises(FinetDeployError, match="no phone is ready"):
        device_names(["all"], Console())
