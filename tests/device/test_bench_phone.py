"""The whole path against AOSP's adbd: probe, push, proof, visits, table; both transports, both processors."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from finet_deploy.bench.settings import load_suite
from finet_deploy.devices.phone_log import PhoneProof, read_lines
from finet_deploy.errors import FinetDeployError
from finet_deploy.export import read_bundle
from finet_deploy.export.bundle import MANIFEST_FILE, Golden
from finet_deploy.export.schema import encode_manifest
from finet_deploy.files import atomic_write_bytes, sha256_bytes
from finet_deploy.runner import runner_folder
from finet_deploy.runner.manifest import MANIFEST_FILE as RUNNER_MANIFEST
from finet_deploy.runner.manifest import Manifest
from tests.device.oracle import Oracle
from tests.device.phone import why_not
from tests.shared_bundles import table4_bundles


def missing() -> str | None:
    if why_not() is not None:
        return str(why_not())
    if shutil.which("adb") is None:
        return "needs adb"
    try:
        runner_folder("aarch64"), runner_folder("x86_64")
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


GOLDEN = ("photo_0", "large")


@pytest.fixture(scope="module")
def table4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return table4_bundles(tmp_path_factory)


def with_golden_inputs(bundle: Path, target: Path, names: tuple[str, ...]) -> None:
    """The same bundle with some of its golden inputs: each costs seconds a network under emulation."""
    whole = read_bundle(shutil.copytree(bundle, target, copy_function=os.link))
    golden = whole.golden()
    data = Golden({n: golden.inputs[n] for n in names}, {n: golden.outputs[n] for n in names}).encode()
    entry = msgspec.structs.replace(whole.manifest.golden, sha256=sha256_bytes(data), inputs=names)
    atomic_write_bytes(target / entry.file, data)  # renamed over the link: the other bundle keeps its own
    manifest = msgspec.structs.replace(whole.manifest, golden=entry)
    atomic_write_bytes(target / MANIFEST_FILE, encode_manifest(manifest))


def pushed_targets(oracle: Oracle) -> list[str]:
    """For which processors the runners on the phone are."""
    found = oracle.path("/data/local/tmp/finet-deploy").glob(f"runner-*/{RUNNER_MANIFEST}")
    return [msgspec.json.decode(path.read_bytes(), type=Manifest).target for path in found]


def device_name(way: str, oracle: Oracle) -> str:
    """What `--device` takes; the adb server is told of the phone first."""
    address = f"127.0.0.1:{oracle.port}"
    if way == "direct":
        return f"tcp:{address}"
    subprocess.run(["adb", "connect", address], check=True, capture_output=True)
    return address


def bench(oracle: Oracle, way: str, *arguments: object) -> dict[str, Any]:
    """What `bench --preset smoke --json` says; nothing of it runs on the phone afterwards."""
    words = ["--device", device_name(way, oracle), "--preset", "smoke", "--threads", "1", "--json"]
    command = [sys.executable, "-m", "finet_deploy", "bench", *map(str, arguments), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert [line for line in oracle.processes() if "runner" in line] == []
    return json.loads(done.stdout)


def assert_proved_and_measured(
    result: dict[str, Any], run: Path, expected: list[tuple[str, str]], inputs: int
) -> None:
    """Every (runtime, label) in order, measured once, and proved on that many golden inputs."""
    assert result["device"]["emulated"] is True
    found = [row for comparison in result["comparisons"] for row in comparison["rows"]]
    assert [(row["row"]["artifact"]["runtime"], row["row"]["label"]) for row in found] == expected
    assert all(row["valid_visits"] == 1 and row["images_per_second"] for row in found)
    report = (run / "report.md").read_text()
    assert all(f"| {label} |" in report for _, label in expected)
    assert "emulated: these are not speeds of a real device" in report
    proofs = [line for line in read_lines(run) if isinstance(line, PhoneProof)]
    assert len(proofs) == len(expected) and all(proof.equivalence.passed for proof in proofs)
    assert [len(proof.equivalence.errors) for proof in proofs] == [inputs] * len(expected)


@pytest.mark.timeout(1800)  # a network's inference takes seconds under emulation, and there are fifty
def test_the_table4_suite_is_proved_measured_and_tabled_in_aarch64_code(
    table4: Path, adb_server: None, tmp_path: Path
) -> None:
    """Through the adb server, as a person does it; of the golden inputs a photograph and large noise."""
    bundles, run = tmp_path / "bundles", tmp_path / "run"
    for row in load_suite("table4").rows:
        with_golden_inputs(table4 / row.name, bundles / row.name, GOLDEN)
    with Oracle("snapdragon855", mss=1448) as oracle:
        arguments = ["--suite", "table4", "--runtimes", "executorch", "--bundles-dir", bundles, "-o", run]
        result = bench(oracle, "adb server", *arguments)
        assert pushed_targets(oracle) == ["aarch64"]
    expected = [("executorch", row.label) for row in load_suite("table4").rows]
    assert_proved_and_measured(result, run, expected, len(GOLDEN))


def test_onnx_runtime_proves_a_network_of_the_suite_in_aarch64_code(table4: Path, tmp_path: Path) -> None:
    """MobileNetV3-Large: hard swish, hard sigmoid, squeeze-excite, two kernel sizes; over TCP, without a server."""
    run, bundle = tmp_path / "run", tmp_path / "mobilenet_v3_large"
    with_golden_inputs(table4 / bundle.name, bundle, GOLDEN)
    with Oracle("snapdragon855", mss=1448) as oracle:
        result = bench(oracle, "direct", bundle, "--runtimes", "onnxruntime", "-o", run)
        assert pushed_targets(oracle) == ["aarch64"]
    (row,) = result["comparisons"][0]["rows"]
    assert_proved_and_measured(result, run, [("onnxruntime", row["row"]["label"])], len(GOLDEN))


def test_a_phone_of_this_machines_kind_proves_the_suite_in_both_runtimes_on_every_golden_input(
    table4: Path, tmp_path: Path
) -> None:
    """An x86_64 phone, as Android's emulator is one: the same path with the other runner, which needs no emulation."""
    run = tmp_path / "run"
    rows = load_suite("table4").rows
    with Oracle("snapdragon855", mss=1448) as oracle:
        for name in ("ro.product.cpu.abi", "ro.product.cpu.abilist", "ro.product.cpu.abilist64"):
            oracle.personality.set_property(name, "x86_64")
        arguments = ["--suite", "table4", "--runtimes", "executorch,onnxruntime"]
        result = bench(oracle, "direct", *arguments, "--bundles-dir", table4, "-o", run)
        assert pushed_targets(oracle) == ["x86_64"]
    expected = [(runtime, row.label) for runtime in ("executorch", "onnxruntime") for row in rows]
    (inputs,) = {len(read_bundle(table4 / row.name).manifest.golden.inputs) for row in rows}
    assert inputs >= 11
    assert_proved_and_measured(result, run, expected, inputs)
