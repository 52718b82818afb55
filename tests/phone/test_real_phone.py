"""What only a phone can show. `FINET_DEVICE=SERIAL pytest tests/phone` runs it; the phone is left as it was found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERIAL = os.environ.get("FINET_DEVICE", "")

pytestmark = [
    pytest.mark.phone,
    pytest.mark.skipif(not SERIAL, reason="needs an Android phone: set FINET_DEVICE to its adb serial"),
]


def finet_deploy(*arguments: object) -> str:
    command = [sys.executable, "-m", "finet_deploy", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_phone_is_listed_as_ready() -> None:
    assert SERIAL in finet_deploy("devices")


def test_every_fact_that_the_phone_does_not_tell_has_a_reason() -> None:
    def unexplained(value: object, path: str = "") -> list[str]:
        if isinstance(value, dict):
            if set(value) == {"value", "reason"}:
                return [path] if value["value"] is None and not value["reason"] else []
            return [found for key, item in value.items() for found in unexplained(item, f"{path}.{key}")]
        return []

    assert unexplained(json.loads(finet_deploy("devices", SERIAL, "--json"))) == []


def test_a_bundle_is_proved_and_measured_on_the_phone_and_nothing_is_left_there(tmp_path: Path) -> None:
    checkpoint, bundle = ROOT / "models/finet_small_se_digits.safetensors", tmp_path / "bundle"
    finet_deploy("export", checkpoint, "--fuse", "--formats", "pte,onnx", "-o", bundle)
    run = tmp_path / "run"
    out = finet_deploy(
        "bench", bundle, "--device", SERIAL, "--preset", "demo", "-o", run, "--clean", "--json"
    )
    result = json.loads(out)
    rows = [row for comparison in result["comparisons"] for row in comparison["rows"]]
    assert len(rows) == 2
    assert all(row["valid_visits"] == 3 and not row["invalid"] for row in rows)
    left = subprocess.run(
        ["adb", "-s", SERIAL, "shell", "ls /data/local/tmp/finet-deploy"], capture_output=True, text=True
    )
    assert left.returncode != 0
