"""What phones print becomes values or reasons, whatever they print."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finet_deploy.bench.protocol import THERMAL_STATUSES, Reading
from finet_deploy.devices import telemetry
from finet_deploy.devices.phone_state import (
    STATE,
    PhoneState,
    device_info,
    device_state,
    parse_state,
    read_facts,
    unread_state,
)
from finet_deploy.devices.remote_job import BootMark, booted_since
from finet_deploy.devices.sections import Section, compose, split
from tests.device.local_connection import LocalConnection

NAMES = st.text(
    st.characters(exclude_characters="[]\n\r", exclude_categories=["Cs"]), min_size=1, max_size=12
)
# What `getprop`'s format itself cannot tell apart: a value in which a line ends with `]` and one begins with `[`.
VALUES = st.text(max_size=40).filter(lambda text: not re.search(r"\]\s*\n", text) and "\r" not in text)

BATTERY = """Current Battery Service state:
  AC powered: false
  USB powered: true
  Wireless powered: false
  Max charging current: 500000
  status: {status}
  health: 2
  present: true
  level: 87
  scale: 100
  voltage: 4352
  temperature: {temperature}
  technology: Li-ion
  Capacity level: 3
  [EventLogBuffer]
  level: 12
"""
THERMAL = """IsStatusOverride: false
ThermalEventListeners:
\tcallbacks: 2
Thermal Status: 2
Cached temperatures:
\tTemperature{mValue=90.0, mType=3, mName=SKIN, mStatus=0}
HAL Ready: true
HAL connection:
\tThermalHAL 2.0 connected: yes
Current temperatures from HAL:
\tTemperature{mValue=25.6, mType=0, mName=AP, mStatus=0}
\tTemperature{mValue=-5700.0, mType=6, mName=vbat, mStatus=0}
\tTemperature{mValue=0.0, mType=2, mName=NOTHING, mStatus=0}
\tTemperature{mValue=33.1, mType=3, mName=SKIN, mStatus=0}
\tTemperature{mValue=34.5, mType=3, mName=back, cover{1}, mStatus=0}
\tTemperature{mValue=999.0, mType=4, mName=USB, mStatus=0}
Current cooling devices from HAL:
\tCoolingDevice{mValue=3, mType=2, mName=cpu0}
"""


class TestProperties:
    @given(st.dictionaries(NAMES, VALUES, max_size=8))
    def test_every_value_comes_back_whatever_is_in_it(self, values):
        text = "".join(f"[{name}]: [{value}]\n" for name, value in values.items())
        assert telemetry.properties(text) == values

    def test_quotes_newlines_and_commands_are_data(self):
        text = '[a]: [it\'s $(rm -rf /) "`x`"]\n[b]: [one\n[c]: [two]\n[d]: []\n'
        found = telemetry.properties(text)
        assert found == {"a": 'it\'s $(rm -rf /) "`x`"', "b": "one\n[c]: [two", "d": ""}

    @given(st.text(max_size=300))
    def test_garbage_is_no_error(self, text):
        telemetry.properties(text)

    def test_the_chip_is_told_by_the_first_property_that_has_it(self):
        old = {"ro.board.platform": "sdm710", "ro.hardware": "qcom"}
        assert telemetry.soc_name(old) == "sdm710"
        assert telemetry.soc_name({**old, "ro.hardware.chipname": "exynos2400"}) == "exynos2400"
        assert (
            telemetry.soc_name({**old, "ro.soc.manufacturer": "QTI", "ro.soc.model": "SM8850"})
            == "QTI SM8850"
        )
        with pytest.raises(ValueError, match="not set"):
            telemetry.soc_name({"ro.soc.model": " "})


class TestBattery:
    def test_the_first_level_of_the_service_counts(self):
        battery = telemetry.parse_battery(BATTERY.format(status=5, temperature=274))
        assert (battery.percent, battery.on_power, battery.celsius, battery.faked) == (
            87.0,
            True,
            27.4,
            False,
        )

    def test_power_is_told_by_the_plugs_not_by_the_status(self):
        text = BATTERY.format(status=2, temperature=-35).replace("USB powered: true", "USB powered: false")
        battery = telemetry.parse_battery(text)
        assert battery.on_power is False
        assert battery.celsius == -3.5

    def test_values_set_by_hand_are_marked(self):
        text = BATTERY.format(status=5, temperature=1).replace(
            "state:", "state:\n  (UPDATES STOPPED -- use 'reset')"
        )
        assert telemetry.parse_battery(text).faked

    @pytest.mark.parametrize(
        ("text", "reason"),
        [
            ("Can't find service: battery", "Can't find service"),
            ("Current Battery Service state:\n  level: 101\n  status: 2\n", "no level"),
            ("Current Battery Service state:\n  level: 50\n", "neither power nor status"),
        ],
    )
    def test_without_figures_there_is_a_reason(self, text, reason):
        with pytest.raises(ValueError, match=reason):
            telemetry.parse_battery(text)


class TestThermal:
    def test_stale_absent_and_foreign_sensors_are_left_out(self):
        heat = telemetry.parse_thermal(THERMAL)
        assert heat.status == 2
        assert heat.celsius == {"cpu AP": 25.6, "skin SKIN": 33.1, "skin back, cover{1}": 34.5}
        assert heat.skin == 34.5
        assert not heat.faked

    def test_a_hal_that_is_not_ready_gives_a_status_and_no_temperature(self):
        heat = telemetry.parse_thermal("IsStatusOverride: true\nThermal Status: 0\nHAL Ready: false\n")
        assert (heat.status, heat.celsius, heat.skin, heat.faked) == (0, {}, None, True)

    @pytest.mark.parametrize("text", ["Can't find service: thermalservice", "Thermal Status: 9\n", "\0\n"])
    def test_no_status_is_a_reason(self, text):
        with pytest.raises(ValueError, match=r"\S"):
            telemetry.parse_thermal(text)


class TestKernelFiles:
    @given(st.sets(st.integers(0, 1023)))
    def test_lists_of_cpus_come_back(self, cpus):
        text = ",".join(map(str, sorted(cpus)))
        assert telemetry.cpu_list(text + "\n") == tuple(sorted(cpus))

    def test_ranges(self):
        assert telemetry.cpu_list("0-3,6,8-9\n") == (0, 1, 2, 3, 6, 8, 9)

    @pytest.mark.parametrize("text", ["3-1", "0-99999", "a", "0-1024", "1,-2", "٣", "0-1-2"])
    def test_what_is_no_list_of_cpus_is_refused(self, text):
        with pytest.raises(ValueError, match="not a list of CPUs"):
            telemetry.cpu_list(text)

    def test_parts_are_those_of_each_core(self):
        block = "processor\t: {}\nCPU implementer\t: 0x{:x}\nCPU part\t: 0x{:03x}\n\n"
        text = block.format(0, 0x41, 0xD05) + block.format(4, 0x51, 0x804) + "Hardware : x\n"
        assert telemetry.cpu_parts(text) == {0: (0x41, 0xD05), 4: (0x51, 0x804)}
        with pytest.raises(ValueError, match="no implementer"):
            telemetry.cpu_parts("processor : 0\nmodel name : x86\nCPU part : zzz\n")

    def test_memory(self):
        text = "MemTotal:        7782400 kB\nMemAvailable:    3000000 kB\n"
        assert telemetry.memory_mib(text, "MemTotal") == 7600
        with pytest.raises(ValueError, match="SwapFree"):
            telemetry.memory_mib(text, "SwapFree")

    @given(
        st.dictionaries(st.integers(1, 10**9 - 1), st.integers(0, 10**12), min_size=1, max_size=6), st.data()
    )
    def test_shares_of_time_sum_to_one(self, before, data):
        spent = {clock: data.draw(st.integers(0, 10**9)) for clock in before}
        after = {clock: before[clock] + spent[clock] for clock in before}
        if not any(spent.values()):
            with pytest.raises(ValueError, match="did not move"):
                telemetry.residency(before, after)
            return
        shares = telemetry.residency(before, after)
        assert sum(shares.values()) == pytest.approx(1.0)
        assert set(shares) == {clock for clock in spent if spent[clock]}

    def test_counters_of_another_boot_give_no_shares(self):
        with pytest.raises(ValueError, match="went back"):
            telemetry.residency({1: 10, 2: 5}, {1: 3, 2: 50})
        with pytest.raises(ValueError, match="frequencies"):
            telemetry.residency({1: 10}, {2: 10})

    def test_time_in_state(self):
        assert telemetry.time_in_state(["300000 12", "1800000 7"]) == {300000: 12, 1800000: 7}
        with pytest.raises(ValueError, match="time_in_state"):
            telemetry.time_in_state(["300000 12", "cat: Permission denied"])


@pytest.mark.parametrize(
    "parse",
    [
        telemetry.parse_battery,
        telemetry.parse_thermal,
        telemetry.cpu_list,
        telemetry.cpu_parts,
        telemetry.wakefulness,
        telemetry.power_save,
        telemetry.cpu_files,
        lambda text: telemetry.time_in_state(text.split("\n")),
        lambda text: telemetry.memory_mib(text, "MemTotal"),
    ],
)
@given(text=st.one_of(st.text(max_size=200), st.just(THERMAL), st.just(BATTERY)))
def test_a_parser_gives_a_value_or_a_reason(parse, text):
    try:
        parse(text)
    except ValueError as error:
        assert str(error).strip()


class TestSections:
    MARK = "f" * 16

    @given(
        st.dictionaries(
            st.sampled_from("abcde"),
            st.tuples(st.binary(max_size=40), st.binary(max_size=40), st.integers(0, 255)),
        )
    )
    def test_answers_come_apart_again_whatever_is_in_them(self, answers):
        out = err = b""
        for name, (stdout, stderr, status) in answers.items():
            begin = f"\n{self.MARK} begin {name}\n".encode()
            out += begin + stdout + f"\n{self.MARK} end {name} {status}\n".encode()
            err += begin + stderr
        found = split(out, err, self.MARK)
        assert {name: (found[name].stdout, found[name].status) for name in found} == {
            name: (stdout, status) for name, (stdout, _, status) in answers.items()
        }
        assert all(found[name].stderr == answers[name][1] for name in found)

    def test_a_real_shell_gives_them(self, tmp_path):
        connection = LocalConnection(tmp_path / "phone")
        commands = {
            "good": "printf 'no newline'",
            "bad": "echo out; echo oops >&2; exit 3",
            "comment": "echo x # a comment",
            "absent": "no-such-command-here",
        }
        result = connection.shell(compose(commands, self.MARK))
        found = split(result.stdout, result.stderr, self.MARK)
        assert found["good"] == Section(b"no newline", b"", 0)
        assert found["bad"] == Section(b"out\n", b"oops\n", 3)
        assert found["comment"].text == "x"
        assert found["absent"].status == 127
        assert "not found" in found["absent"].reason

    def test_one_stream_for_both_is_understood(self, tmp_path):
        connection = LocalConnection(tmp_path / "phone")
        command = compose({"one": "echo a; echo b >&2", "two": "echo c"}, self.MARK)
        merged = connection.shell(f"( {command} ) 2>&1").stdout
        found = split(merged, b"", self.MARK)
        assert (found["one"].text, found["one"].status, found["two"].text) == ("a\nb", 0, "c")
        crlf = split(merged.replace(b"\n", b"\r\n"), b"", self.MARK)
        assert (crlf["one"].text, crlf["two"].text) == ("a\nb", "c")

    def test_a_command_that_was_cut_short_has_a_reason(self):
        found = split(f"\n{self.MARK} begin a\n".encode(), b"", self.MARK)
        with pytest.raises(ValueError, match="shell ended"):
            _ = found["a"].text


class TestState:
    def test_nothing_readable_is_all_reasons(self):
        state = parse_state({name: Section(b"", b"sh: inaccessible or not found", 127) for name in STATE})
        for name in PhoneState.__struct_fields__:
            value = getattr(state, name)
            if isinstance(value, Reading):
                assert value.value is None
                assert value.reason, name
        assert device_state(state).temperatures_celsius.reason

    def test_the_thermal_status_goes_into_records_by_androids_name(self):
        state = unread_state("not asked")
        names = [
            device_state(msgspec.structs.replace(state, thermal_status=Reading(value=number))).thermal_status
            for number in range(7)
        ]
        assert [name.value for name in names] == list(THERMAL_STATUSES)

    def test_one_refusal_spoils_nothing_else(self, tmp_path):
        phone = LocalConnection(tmp_path / "phone")
        (phone.root / "dumpsys.thermalservice").unlink()
        (phone.root / "proc/loadavg").unlink()
        from finet_deploy.devices.phone_state import read_state

        state = read_state(phone)
        assert "Can't find service" in state.thermal_status.reason
        assert device_state(state).thermal_status == state.thermal_status
        assert "loadavg" in state.load_average_1min.reason
        assert state.battery_percent.value == 80.0
        assert state.memory_available_mib.value == 2929
        assert state.screen.value == "awake"

    def test_an_unset_property_means_that_android_is_not_up(self, tmp_path):
        phone = LocalConnection(tmp_path / "phone")
        (phone.root / "property.sys.boot_completed").unlink()
        from finet_deploy.devices.phone_state import read_state

        assert read_state(phone).boot_completed.value is False

    def test_what_could_not_be_asked_has_one_reason_everywhere(self):
        assert unread_state("asleep").thermal_status == Reading(reason="asleep")
        assert unread_state("asleep").faked is False

    def test_hostile_properties_stay_data(self, tmp_path):
        phone = LocalConnection(tmp_path / "phone")
        phone.write("properties", b"[ro.product.model]: [\xff\xfe \x1b[31m $(touch hacked)]\n[ro.x]: [1]\n")
        facts = read_facts(phone)
        assert "$(touch hacked)" in facts.model.value
        assert facts.soc.value is None
        assert "\x1b" not in device_info("x", facts).cpu_model.value
        assert not list(tmp_path.rglob("hacked"))


class TestBoots:
    IDS = st.one_of(st.none(), st.sampled_from(["a" * 36, "b" * 36]))

    @given(IDS, st.floats(0, 1e7), st.floats(0, 1e5))
    def test_the_same_boot_is_never_called_another(self, boot_id, uptime, elapsed):
        then, now = BootMark(boot_id, uptime), BootMark(boot_id, uptime + elapsed)
        assert not booted_since(then, now, elapsed)

    @given(st.floats(0, 1e7), st.floats(30, 1e5), st.floats(0, 1))
    def test_a_short_uptime_tells_another_boot_without_an_id(self, uptime, elapsed, share):
        now = BootMark(None, share * (elapsed - 20))
        assert booted_since(BootMark(None, uptime), now, elapsed)

    def test_the_id_decides_where_there_is_one(self):
        assert booted_since(BootMark("a", 5.0), BootMark("b", 100.0), 95.0)
        assert not booted_since(BootMark("a", 500.0), BootMark("a", 1.0), 95.0)
        assert not booted_since(BootMark("a", None), BootMark(None, None), 95.0)
