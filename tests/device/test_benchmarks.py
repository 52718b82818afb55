"""The benchmarks run. What they measure is not asserted: a busy machine must not fail a test."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.device.runner_native import shared_tiny

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "harness_overhead.py"


def test_the_harness_overhead_is_measured_with_an_interval_and_a_verdict(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """Of a small bundle that is there; the one that the script exports itself is made by `finet-deploy export`."""
    bundle = shared_tiny(tmp_path_factory)
    command = [sys.executable, str(SCRIPT), "--bundle", str(bundle), "--pairs", "6", "--runs", "4"]
    done = subprocess.run(command, capture_output=True, text=True)
    found = re.search(r"harness over bare loop: ([-+][\d.]+) % \[([-+][\d.]+), ([-+][\d.]+)\]", done.stdout)
    assert found, done.stderr
    middle, low, high = map(float, found.groups())
    assert low <= middle <= high
    assert ("PASS" in done.stdout) == (done.returncode == 0)
