"""`finet-deploy devices`: what it finds, what it probes, what it says about the rest."""

from __future__ import annotations

import json

import pytest

from finet_deploy.devices.adb import FoundPhone
from finet_deploy.devices.adb.errors import NoAdbServer, PhoneGone
from tests.cli import FAILED, USAGE, error_line, run_cli
from tests.device.local_connection import LocalConnection


@pytest.fixture
def phones(tmp_path, monkeypatch):
    """Two phones on a pretended adb server: one that works, one that waits for its user."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    phone = LocalConnection(tmp_path / "phone", "good-1")
    listed = [
        FoundPhone("good-1", "device"),
        FoundPhone("shy-2", "unauthorized", remedy="unlock the phone and accept"),
    ]

    def opened(spec, **options):
        if spec != phone.name:
            raise PhoneGone(spec, "no such phone")
        return phone

    monkeypatch.setattr("finet_deploy.devices.adb.find_phones", lambda **options: listed)
    monkeypatch.setattr("finet_deploy.devices.adb.open_connection", opened)
    return phone, listed


def test_the_list_has_model_chip_version_state_and_remedy(phones, capsys):
    status, out, err = run_cli(capsys, "devices")
    lines = out.splitlines()
    assert status == 0, err
    assert lines[0].split() == ["serial", "model", "soc", "android", "state"]
    assert "QTI SM8150" in lines[1]
    assert "14" in lines[1]
    assert lines[1].endswith("device")
    assert lines[2].split() == ["shy-2", "-", "-", "-", "unauthorized"]
    assert lines[3] == "shy-2: unlock the phone and accept"
    assert len(lines) == 4, "a newline in a property makes no line"


def test_the_list_for_machines(phones, capsys):
    status, out, _ = run_cli(capsys, "devices", "--json")
    rows = json.loads(out)
    assert status == 0
    assert [row["state"] for row in rows] == ["device", "unauthorized"]
    assert rows[0]["soc"] == "QTI SM8150"
    assert rows[1]["remedy"] == "unlock the phone and accept"


def test_a_phone_that_does_not_answer_does_not_hide_the_others(phones, capsys):
    phone, listed = phones
    listed.append(FoundPhone("dead-3", "device"))
    status, out, _ = run_cli(capsys, "devices", "--json")
    assert status == 0
    assert json.loads(out)[2]["state"] == "not answering"
    assert "no such phone" in json.loads(out)[2]["remedy"]
    phone.fault(".", phone.silent)
    _, out, _ = run_cli(capsys, "devices", "--json")
    assert json.loads(out)[0]["state"] == "not answering"


def test_no_phones_is_said(phones, capsys):
    phones[1].clear()
    status, out, err = run_cli(capsys, "devices")
    assert (status, out) == (0, "")
    assert "USB debugging" in err


def test_one_phone_with_everything_that_was_probed(phones, capsys):
    phone, _ = phones
    (phone.root / "dumpsys.thermalservice").unlink()
    status, out, _ = run_cli(capsys, "devices", "good-1")
    assert status == 0
    for text in (
        "SM8150",
        "big cores",
        "default threads        1",
        "capacity 1024",
        "battery percent        80",
    ):
        assert text in out, out
    assert "thermal status         not known: Can't find service: thermalservice" in out
    assert "\x1b" not in out
    status, out, _ = run_cli(capsys, "devices", "good-1", "--json")
    found = json.loads(out)
    assert found["facts"]["soc"] == {"value": "QTI SM8150", "reason": None}
    assert found["state"]["thermal_status"]["value"] is None
    assert found["facts"]["cores"]["value"][-1]["capacity"] == 1024
    assert "\n" in found["facts"]["model"]["value"], "data stays as it is"


def test_an_unknown_phone_is_an_error(phones, capsys):
    assert "no such phone [other]" in error_line(capsys, FAILED, "devices", "other")


def test_no_adb_at_all_is_an_error_with_the_way_out(phones, capsys, monkeypatch):
    def none(**options):
        raise NoAdbServer("adb server", "no adb server answers")

    monkeypatch.setattr("finet_deploy.devices.adb.find_phones", none)
    assert "tcp:HOST:PORT" in error_line(capsys, FAILED, "devices")


def test_clean_removes_our_folder(phones, capsys):
    phone, _ = phones
    phone.write("tmp/finet-deploy/files/x", "old")
    status, out, _ = run_cli(capsys, "devices", "good-1", "--clean")
    assert status == 0
    assert "removed /data/local/tmp/finet-deploy" in out
    assert phone.list("/data/local/tmp") == {}


def test_clean_needs_a_phone(phones, capsys):
    assert "name the phone" in error_line(capsys, USAGE, "devices", "--clean")
