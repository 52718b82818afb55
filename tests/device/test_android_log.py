"""What is known of a phone's visits is on the disk, and a reader of a table learns what spoiled a row."""

from __future__ import annotations

import msgspec
import pytest

from finet_deploy.bench.protocol import Reading
from finet_deploy.devices.phone_log import (
    PHONE_FILE,
    PhoneIdentity,
    PhoneProof,
    append_line,
    read_lines,
    remarks,
)
from finet_deploy.devices.phone_state import read_facts, read_state
from finet_deploy.devices.phone_visit import PhoneVisit, Pin
from finet_deploy.devices.rest import Rest
from finet_deploy.errors import FinetDeployError
from tests.device.android_setup import make_phone, make_rows, request_of
from tests.device.local_connection import LocalConnection


@pytest.fixture
def visit(tmp_path):
    state = read_state(LocalConnection(tmp_path / "phone"))
    rest = Rest(at_rest=True, throttled=False, waited_seconds=0.0, celsius=Reading(value=30.0))
    pin = Pin(cores=(7,), mask=Reading(value="80"))
    residency = Reading(value={7: {2800000: 1.0}})
    return PhoneVisit(visit=3, attempt=1, rest=rest, pin=pin, residency=residency, before=state, after=state)


def change(visit, **changes):
    return msgspec.structs.replace(visit, **changes)


def test_a_run_leaves_identity_proofs_and_visits(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    rows = make_rows(tmp_path)
    (tmp_path / "run").mkdir()
    device, _ = make_phone(tmp_path)
    with device:
        device.prepare(rows, tmp_path / "run")
        device.run_visit(request_of(rows[1], index=5))
    lines = read_lines(tmp_path / "run")
    assert [type(line) for line in lines] == [PhoneIdentity, PhoneProof, PhoneProof, PhoneVisit]
    assert lines[0].facts.soc.value == "QTI SM8150"
    assert lines[1].equivalence == device.equivalence[rows[0].id]
    assert lines[3] == device.visits[0]
    assert remarks(lines) == {}


def test_lines_come_back_and_a_cut_one_is_left_out(tmp_path, visit):
    facts = read_facts(LocalConnection(tmp_path / "phone"))
    append_line(tmp_path, PhoneIdentity(name="x", facts=facts))
    append_line(tmp_path, visit)
    path = tmp_path / PHONE_FILE
    path.write_bytes(path.read_bytes()[:-40])
    append_line(tmp_path, change(visit, attempt=2))
    found = read_lines(tmp_path)
    assert found == (PhoneIdentity(name="x", facts=facts), change(visit, attempt=2))


def test_a_run_on_the_host_has_no_lines(tmp_path):
    assert read_lines(tmp_path) == ()


@pytest.mark.parametrize("content", [b"\x00\xff\nsecond\n", b"[" * 9000 + b"\n" + b"{}\n", b"x" * (5 << 20)])
def test_a_foreign_file_is_refused(tmp_path, content):
    (tmp_path / PHONE_FILE).write_bytes(content)
    with pytest.raises(FinetDeployError, match="not a phone's lines"):
        read_lines(tmp_path)


def test_every_thing_that_spoils_a_row_is_a_remark(visit):
    reason = Reading(reason="taskset: bad mask")
    spoilt = {
        "heat": {"contaminated": ("thermal status rose to 1 (light)",)},
        "second attempt": {"repeated_because": ("it got hot",)},
        "not known to be at rest": {"rest": change(visit.rest, at_rest=None, problem="no thermal service")},
        "bad mask": {"pin": change(visit.pin, mask=reason)},
        "battery saver": {"before": change(visit.before, power_save=Reading(value=True))},
        "screen was asleep": {"before": change(visit.before, screen=Reading(value="asleep"))},
        "by hand": {"after": change(visit.after, faked=True)},
    }
    for word, changes in spoilt.items():
        found = remarks((change(visit, **changes),))
        assert len(found[3]) == 1
        assert word in found[3][0] or word == "heat"
    assert remarks((visit,)) == {}


def test_the_last_attempt_counts(visit):
    hot = change(visit, contaminated=("thermal status rose to 1",))
    assert remarks((hot, change(visit, attempt=2, repeated_because=hot.contaminated)))[3][0].startswith(
        "second attempt"
    )
