"""The whole path against AOSP's adbd: probe, push, proof in aarch64 code, visits, table; both transports."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from finet_deploy.bench.settings import load_suite
from finet_deploy.devices.phone_log import PhoneProof, read_lines
from finet_deploy.errors import FinetDeployError
from finet_deploy.runner import runner_folder
from tests.device.oracle import Oracle
from tests.device.phone import why_not
from tests.shared_bundles import table4_bundles

ROOT = Path(__file__).parents[2]


def missing() -> str | None:
    if why_not() is not None:
        return str(why_not())
    if shutil.which("adb") is None:
        return "needs adb"
    try:
        runner_folder("aarch64")
    except FinetDeployError as error:
        return str(error)
    return None


pytestmark = pytest.mark.skipif(missing() is not None, reason=str(missing()))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("bundle") / "digits"
    checkpoint = ROOT / "models/finet_small_se_digits.safetensors"
    arguments = ["export", str(checkpoint), "--fuse", "--formats", "pte,onnx", "-o", str(out)]
    subprocess.run([sys.executable, "-m", "finet_deploy", *arguments], check=True, capture_output=True)
    return out


@pytest.fixture
def adb_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A server of our own: the user's, and other tests', are left alone."""
    monkeypatch.setenv("ANDROID_ADB_SERVER_PORT", str(free_port()))
    yield
    subprocess.run(["adb", "kill-server"], capture_output=True, check=False)


@pytest.fixture(scope="module")
def table4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return table4_bundles(tmp_path_factory)


def device_name(way: str, oracle: Oracle) -> str:
    """What `--device` takes; the adb server is told of the phone first."""
    address = f"127.0.0.1:{oracle.port}"
    if way == "direct":
        return f"tcp:{address}"
    subprocess.run(["adb", "connect", address], check=True, capture_output=True)
    return address


@pytest.mark.parametrize("way", ["adb server", "direct"])
def test_a_bundle_is_proved_measured_and_tabled_as_emulated(
    way: str, bundle: Path, adb_server: None, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with Oracle("snapdragon855", mss=1448) as oracle:
        device = device_name(way, oracle)
        arguments = ["bench", str(bundle), "--device", device, "--preset", "demo", "--threads", "1", "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "finet_deploy", *arguments, "-o", str(run)],
            capture_output=True,
            text=True,
            env=dict(os.environ),
        )
        assert done.returncode == 0, done.stderr
        assert [line for line in oracle.processes() if "runner" in line] == []
    result = json.loads(done.stdout)
    assert result["device"]["emulated"] is True
    rows = [row for comparison in result["comparisons"] for row in comparison["rows"]]
    assert {row["row"]["artifact"]["runtime"] for row in rows} == {"executorch", "onnxruntime"}
    assert all(row["valid_visits"] == 3 for row in rows)
    assert "emulated: these are not speeds of a real device" in (run / "report.md").read_text()
    lines = [json.loads(line) for line in (run / "phone.jsonl").read_text().splitlines() if line]
    proofs = [line["equivalence"] for line in lines if line.get("type") == "proof"]
    assert proofs and all(proof["passed"] for proof in proofs)


@pytest.mark.parametrize("way", ["adb server", "direct"])
def test_the_table4_suite_is_proved_and_tabled_on_adbd(
    way: str, table4: Path, adb_server: None, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with Oracle("snapdragon855", mss=1448) as oracle:
        device = device_name(way, oracle)
        arguments = ["bench", "--suite", "table4", "--device", device, "--preset", "smoke", "--threads", "1"]
        arguments += ["--bundles-dir", str(table4), "-o", str(run)]
        done = subprocess.run(
            [sys.executable, "-m", "finet_deploy", *arguments], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert [line for line in oracle.processes() if "runner" in line] == []
    rows = load_suite("table4").rows
    assert all(done.stdout.count(f"| {row.label} |") >= 2 for row in rows)
    assert "emulated: these are not speeds of a real device" in done.stdout
    assert "this runner lacks the runtime: torch_mobile" in done.stdout
    proofs = [line for line in read_lines(run) if isinstance(line, PhoneProof)]
    assert len(proofs) == 2 * len(rows) and all(proof.equivalence.passed for proof in proofs)
