"""The whole path against AOSP's adbd: probe, push, proof in aarch64 code, visits, table; both transports."""

from __future__ import annotations

import json
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


@pytest.mark.timeout(2700)  # a network's inference takes seconds under emulation, and there are hundreds
@pytest.mark.parametrize(("way", "runtime"), [("adb server", "executorch"), ("direct", "onnxruntime")])
def test_the_table4_suite_is_proved_measured_and_tabled_as_emulated(
    way: str, runtime: str, table4: Path, adb_server: None, tmp_path: Path
) -> None:
    """One runtime each way: together they take eight minutes, and which way files came does not matter to a runtime."""
    run = tmp_path / "run"
    with Oracle("snapdragon855", mss=1448) as oracle:
        arguments = ["--suite", "table4", "--device", device_name(way, oracle), "--preset", "smoke"]
        arguments += ["--runtimes", runtime, "--threads", "1", "--json"]
        arguments += ["--bundles-dir", str(table4), "-o", str(run)]
        done = subprocess.run(
            [sys.executable, "-m", "finet_deploy", "bench", *arguments], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert [line for line in oracle.processes() if "runner" in line] == []
    result = json.loads(done.stdout)
    assert result["device"]["emulated"] is True
    found = [row for comparison in result["comparisons"] for row in comparison["rows"]]
    labels = [row.label for row in load_suite("table4").rows]
    expected = [(runtime, label) for label in labels]
    assert [(row["row"]["artifact"]["runtime"], row["row"]["label"]) for row in found] == expected
    assert all(row["valid_visits"] == 1 and row["images_per_second"] for row in found)
    report = (run / "report.md").read_text()
    assert all(f"| {label} |" in report for label in labels)
    assert "emulated: these are not speeds of a real device" in report
    proofs = [line for line in read_lines(run) if isinstance(line, PhoneProof)]
    assert len(proofs) == len(expected) and all(proof.equivalence.passed for proof in proofs)
