"""The benchmark of `compare` draws what it says it draws. What it measures is not asserted, but for what must be so."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks import compare_rates
from tests.benchmarks.compare_rates import ROUNDS, Rate, Simulation, measure, noise
from tests.benchmarks.compare_recording import Recording, read_recordings

RECORDED = Path(__file__).parents[2] / "results" / "table4-fusion-normal"
SAME = ("net", "A/A: net", "net again", "net once more")


def recording(scatter=0.0, drift=0.0, rounds=80):
    """Every rate says which row and round it is from, so that it is seen where it went; rows of one file are alike."""
    random = np.random.default_rng(3)
    names = (*SAME, "reference")
    rates = [
        {name: 100.0 * (1 + drift * n) * float(np.exp(scatter * random.standard_normal())) for name in names}
        for n in range(rounds)
    ]
    runs = tuple(f"run-{n // ROUNDS}" for n in range(rounds))
    return Recording("onnxruntime", tuple(rates), runs, SAME, ("reference",))


def test_recorded_visits_are_read_back_from_the_file_that_was_written_of_them(tmp_path, monkeypatch, capsys):
    arguments = ["x", str(RECORDED), "--pairs", "4", "--slowdown", "0.5", "-o", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", arguments)
    assert compare_rates.main() == 0
    folder, file = read_recordings([RECORDED]), read_recordings([tmp_path / "visits.csv"])
    assert folder == file
    found = json.loads((tmp_path / "rates.json").read_text())
    assert {result["design"] for result in found["results"]} == {
        "paired"
    }  # ten rounds are too few for two runs
    assert all(result["found"]["calls"] == 4 for result in found["results"])
    assert "50% slowdown found" in (tmp_path / "rates.md").read_text()
    assert (tmp_path / "rates.md").read_text() in capsys.readouterr().out


def test_recordings_of_other_rows_are_kept_apart(tmp_path):
    both = read_recordings([RECORDED, RECORDED.parent / "table4-quick"])
    assert [one.runtime for one in both] == [
        "executorch", "onnxruntime", "executorch", "onnxruntime", "torch_mobile",
    ]  # fmt: skip
    assert [len(one.rounds) for one in both] == [10, 10, 5, 5, 5]


def test_a_window_is_of_consecutive_rounds_and_two_runs_share_none():
    simulation = Simulation(recording(), np.random.default_rng(0))
    for _ in range(50):
        first = simulation.window(ROUNDS)
        second = simulation.window(ROUNDS, avoid=first)
        assert np.all(np.diff(first) == 1)
        assert not set(first) & set(second)
        assert max(*first, *second) < 80


def test_every_design_finds_a_large_slowdown_and_calls_none_that_is_none():
    results = measure(recording(scatter=0.005, drift=0.0005), pairs=6, slowdown=0.3, seed=1)
    assert [result.design for result in results] == [
        "paired",
        "paired, 20 rounds",
        "apart",
        "referenced",
        "confirmed",
    ]
    for result in results:
        assert result.found.calls == 6
        assert result.false_any.of == 6
        assert sum(result.verdicts_without_change.values()) == 6
    assert results[0].false_slower.calls == 0


def test_the_drift_of_the_machine_is_seen_in_the_means_of_runs_and_not_against_the_reference():
    found = noise(recording(drift=0.01))
    assert found.run_mean > 0.05
    assert found.run_mean_to_reference == pytest.approx(0, abs=1e-9)
    assert found.same_round_difference == pytest.approx(0, abs=1e-9)


def test_the_interval_of_a_rate_is_the_exact_binomial_one():
    rate = Rate.count(3, 200)
    assert (rate.low, rate.high) == pytest.approx((0.00310, 0.04322), abs=1e-4)
    assert (Rate.count(0, 10).low, Rate.count(10, 10).high) == (0, 1)
