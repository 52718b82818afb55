"""Nothing is measured on a phone that is hot, and what heats up meanwhile is measured again."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from finet_deploy.bench.protocol import End, Invalid, Reading
from finet_deploy.devices.phone_state import read_state, unread_state
from finet_deploy.devices.rest import PhoneHot, RestGate, RestRule, Watch, contamination
from tests.device.android_setup import COOL, make_phone, make_rows, request_of
from tests.device.local_connection import BIG, LITTLE, LocalConnection


@pytest.fixture
def cool(tmp_path):
    """The state of a phone at rest."""
    return read_state(LocalConnection(tmp_path / "phone"))


def change(state, **values):
    return msgspec.structs.replace(state, **{name: Reading(value=value) for name, value in values.items()})


def waiting(gate, states, *, new_round=True):
    sequence = itertools.chain(states, itertools.repeat(states[-1]))
    return gate.wait(lambda: next(sequence), new_round=new_round)


def test_a_hot_phone_is_waited_for(cool):
    gate = RestGate(RestRule(poll_seconds=0.01, deadline_seconds=5.0))
    state, rest = waiting(gate, [change(cool, thermal_status=2)] * 3 + [cool])
    assert rest.at_rest
    assert not rest.throttled
    assert rest.waited_seconds > 0
    assert state == cool


def test_the_wait_has_an_end(cool):
    _, rest = waiting(RestGate(COOL), [change(cool, thermal_status=3)])
    assert rest.at_rest is False
    assert rest.throttled
    assert rest.problem == "thermal status 3 (severe)"


def test_a_later_round_starts_as_cool_as_the_first(cool):
    gate = RestGate(RestRule(poll_seconds=0.01, deadline_seconds=5.0, band_celsius=3.0))
    waiting(gate, [cool])
    warm = change(cool, skin_celsius=33.5)
    _, rest = waiting(gate, [warm, warm, change(cool, skin_celsius=32.9)])
    assert rest.at_rest
    assert rest.celsius.value == 32.9
    _, inside = waiting(gate, [warm], new_round=False)
    assert inside.at_rest, "within a round only the thermal status counts"


def test_a_phone_that_stays_warmer_is_measured_and_the_rest_says_so(cool):
    gate = RestGate(COOL)
    waiting(gate, [cool])
    _, rest = waiting(gate, [change(cool, skin_celsius=40.0)])
    assert rest.at_rest is False
    assert not rest.throttled
    assert "skin at 40 °C, at the first round's start it was 30 °C" in rest.problem


def test_a_phone_that_does_not_tell_is_not_waited_for(cool):
    _, rest = waiting(RestGate(COOL), [unread_state("no such service")])
    assert rest.at_rest is None
    assert "no such service" in rest.problem
    assert rest.celsius.value is None


def test_the_battery_stands_in_for_the_skin_and_is_never_mixed_with_it(cool):
    gate = RestGate(COOL)
    no_skin = msgspec.structs.replace(cool, skin_celsius=Reading(reason="none"))
    waiting(gate, [no_skin])
    assert waiting(gate, [change(cool, skin_celsius=90.0)])[1].at_rest, "another sensor: not comparable"
    assert not waiting(gate, [msgspec.structs.replace(no_skin, battery_celsius=Reading(value=35.0))])[
        1
    ].at_rest


def watched(**values):
    return Watch((BIG,), **values)


@pytest.mark.parametrize(
    ("after", "watch", "expected"),
    [
        ({}, {}, ""),
        ({"thermal_status": 1}, {}, "thermal status rose to 1"),
        ({}, {"statuses": [0, 2, 0]}, "thermal status rose to 2"),
        ({"frequency_caps_mhz": {LITTLE: 1800.0, BIG: 2000.0}}, {}, "capped at 2000 MHz, before at 2800"),
        ({}, {"caps_mhz": [{BIG: 1500.0}, {BIG: 2800.0}]}, "capped at 1500 MHz"),
        ({}, {"allowed": [(BIG,), (0, 1, 2)]}, "on cores 0, 1, 2 instead of"),
        ({"power_save": True}, {}, "battery saver"),
    ],
)
def test_what_spoils_a_visit(cool, after, watch, expected):
    found = contamination(cool, change(cool, **after), watched(**watch), (BIG,))
    assert (expected in "; ".join(found)) if expected else not found


def test_a_cap_on_a_core_that_is_not_used_spoils_nothing(cool):
    if LITTLE == BIG:
        pytest.skip("one core only")
    capped = change(cool, frequency_caps_mhz={LITTLE: 300.0, BIG: 2800.0})
    assert not contamination(cool, capped, watched(), (BIG,))


class TestVisits:
    @pytest.fixture
    def ready(self, tmp_path):
        said = []
        device, phone = make_phone(tmp_path, note=said.append)
        rows = make_rows(tmp_path)
        (tmp_path / "run").mkdir()
        with device:
            device.prepare(rows, tmp_path / "run")
            yield device, phone, rows, said

    def test_a_visit_that_heats_the_phone_is_done_again_once(self, ready):
        device, phone, rows, said = ready
        phone.fault("mkdir started", lambda text: phone.heat(1))
        phone.fault(r"rm -rf \S+job-\w+$", lambda text: None)
        phone.fault("begin thermal", lambda text: None)
        phone.fault("begin thermal", lambda text: None)
        phone.fault("begin thermal", lambda text: phone.heat(0))
        records = device.run_visit(request_of(rows[0]))
        assert isinstance(records[-1], End)
        assert [visit.attempt for visit in device.visits] == [1, 2]
        assert "thermal status rose" in device.visits[0].contaminated[0]
        assert device.visits[1].repeated_because == device.visits[0].contaminated
        assert not device.visits[1].contaminated
        assert any("done again" in text for text in said)

    def test_a_phone_that_stays_hot_is_not_measured(self, ready):
        device, phone, rows, _ = ready
        phone.heat(3)
        told = r"did not come to rest within 0\.3\d* s: thermal status 3 \(severe\) .*let it cool"
        with pytest.raises(PhoneHot, match=told):
            device.run_visit(request_of(rows[0], index=4))
        assert not device.visits

    def test_a_crashed_visit_is_not_done_again(self, ready):
        device, phone, rows, _ = ready
        phone.write("fault", "exit")
        phone.fault("mkdir started", lambda text: phone.battery(10))
        records = device.run_visit(request_of(rows[0]))
        assert isinstance(records[-1], Invalid)
        assert records[-1].exit_status == 7
        assert len(device.visits) == 1

    def test_a_run_that_goes_on_keeps_its_first_temperature(self, ready, tmp_path):
        device, phone, rows, _ = ready
        device.run_visit(request_of(rows[0]))
        device.close()
        phone.heat(0, skin=39.0)
        again, _ = make_phone(tmp_path)
        with again:
            again.prepare(rows, tmp_path / "run")
            again.run_visit(request_of(rows[0], index=1, round=1))
        assert "at the first round's start it was 30 °C" in again.visits[0].rest.problem
