"""The timing loop's stopping rule, and probes that read what there is and say why they could not."""

from __future__ import annotations

import pytest

from finet_deploy.bench.golden import GoldenFile
from finet_deploy.devices import probes, worker
from finet_deploy.devices.worker import timing_loop
from finet_deploy.errors import FinetDeployError


class Clock:
    """Time that passes in calls only."""

    def __init__(self, call_ns):
        self.now, self.calls, self.call_ns = 0, 0, call_ns

    def perf_counter_ns(self):
        return self.now

    def call(self):
        self.calls += 1
        self.now += self.call_ns


@pytest.fixture
def loop(monkeypatch):
    """`loop(call_ms, **rule)` -> latencies in ms and what stopped it."""

    def run(call_ms, *, min_runs=1, min_seconds=0.0, max_seconds=100.0, max_runs=1000):
        clock = Clock(int(call_ms * 1e6))
        monkeypatch.setattr(worker, "time", clock)
        rule = {
            "min_runs": min_runs,
            "min_seconds": min_seconds,
            "max_seconds": max_seconds,
            "max_runs": max_runs,
        }
        latencies, stopped = timing_loop(clock.call, **rule)
        assert clock.calls == len(latencies)
        return [latency / 1e6 for latency in latencies], stopped

    return run


def test_both_the_runs_and_the_seconds_have_to_be_reached(loop):
    assert loop(10, min_runs=5, min_seconds=0.02) == ([10.0] * 5, "minimum")
    assert loop(10, min_runs=2, min_seconds=0.05) == ([10.0] * 5, "minimum")


def test_each_cap_ends_the_loop_and_is_told(loop):
    assert loop(100, min_runs=50, max_seconds=0.25) == ([100.0] * 3, "max_seconds")
    assert loop(1, min_seconds=10.0, max_runs=7) == ([1.0] * 7, "max_runs")


def test_a_preset_whose_cap_is_its_minimum_is_not_called_capped(loop):
    assert loop(1, min_runs=7, max_runs=7) == ([1.0] * 7, "minimum")


def test_at_least_one_run_is_made(loop):
    assert loop(5000, min_runs=10, max_seconds=1.0) == ([5000.0], "max_seconds")


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


PHONE = {
    "proc/loadavg": "1.50 1.20 1.00 2/345 678\n",
    "proc/cpuinfo": "processor : 0\nmodel name : Kryo: 485\ncpu MHz : 2841.6\n",
    "proc/meminfo": "MemTotal:  6144000 kB\nMemAvailable:  2048000 kB\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "performance\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1785600\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-0-0\n",
    "sys/class/thermal/thermal_zone0/temp": "41500\n",
    "sys/class/power_supply/BAT0/capacity": "83\n",
    "sys/class/power_supply/BAT0/status": "Discharging\n",
}


def test_probes_read_what_the_system_shows(tmp_path):
    write(tmp_path, PHONE)
    state, info = probes.host_state(tmp_path), probes.host_info(tmp_path)
    assert state.load_average_1min.value == 1.5
    assert state.governor.value == "performance, schedutil"
    assert state.frequencies_mhz.value == (1785.6,)
    assert state.memory_available_mib.value == 2000
    assert state.temperatures_celsius.value == {"thermal_zone0 cpu-0-0": 41.5}
    assert (state.battery_percent.value, state.battery_charging.value) == (83.0, False)
    assert (info.cpu_model.value, info.memory_mib.value) == ("Kryo: 485", 6000)


def test_what_is_not_there_is_none_with_a_reason_and_never_a_number(tmp_path):
    for structure in (probes.host_state(tmp_path), probes.host_info(tmp_path)):
        for name in structure.__struct_fields__:
            value = getattr(structure, name)
            if isinstance(value, probes.Reading) and name not in ("machine", "operating_system"):
                assert value.value is None, name
                assert value.reason, name


@pytest.mark.parametrize("text", ["", "nonsense\n", "\x00\x00", "MemTotal: lots kB\n"])
def test_files_with_nonsense_are_a_reason_not_a_crash(tmp_path, text):
    write(tmp_path, dict.fromkeys(PHONE, text))
    state = probes.host_state(tmp_path)
    for name in ("load_average_1min", "frequencies_mhz", "memory_available_mib", "temperatures_celsius"):
        assert getattr(state, name).value is None
        assert getattr(state, name).reason


def test_a_file_that_may_not_be_read_is_named(tmp_path):
    write(tmp_path, PHONE)
    (tmp_path / "proc/loadavg").unlink()
    (tmp_path / "proc/loadavg").mkdir()
    assert "Is a directory" in probes.host_state(tmp_path).load_average_1min.reason


def test_this_process_tells_its_own_size_threads_and_cpus():
    assert probes.peak_rss_mib().value > 10
    assert probes.os_threads().value >= 1
    assert probes.affinity_cpus().value


def test_a_golden_file_that_is_none_and_a_missing_tensor_are_clear_errors(tmp_path):
    (tmp_path / "golden.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(FinetDeployError, match=r"cannot read.*golden\.safetensors"):
        GoldenFile(tmp_path / "golden.safetensors")
    with pytest.raises(FinetDeployError, match="cannot read"):
        GoldenFile(tmp_path / "absent.safetensors")
