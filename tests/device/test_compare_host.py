"""A real confirming run: two real bundles on this machine. No time is asserted: the machine may be busy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest

from finet_deploy.bench.plan import BenchRow
from finet_deploy.bench.protocol import Samples
from finet_deploy.bench.records import JOB_FILE, RecordLog, read_run
from finet_deploy.bench.run import run_bench
from finet_deploy.devices.host import HostDevice
from finet_deploy.export import read_bundle
from finet_deploy.export.bundle import MANIFEST_FILE
from finet_deploy.export.schema import encode_manifest
from finet_deploy.files import sha256_file
from tests.bench_fakes import SETTINGS
from tests.cli import FAILED, run_cli
from tests.device.runner_native import shared_tiny, with_formats

DOC_STRING = b"\x32\x05again"  # field 6 of an ONNX ModelProto: another file, the same network


@pytest.fixture
def bundles(tmp_path_factory, tmp_path):
    """`base/tiny` and `new/tiny`: one network in two files of other bytes."""
    base = with_formats(shared_tiny(tmp_path_factory), tmp_path / "base" / "tiny", ("onnx",))
    new = Path(shutil.copytree(base, tmp_path / "new" / "tiny"))
    bundle = read_bundle(new)
    path = bundle.artifact_path("onnx")
    path.write_bytes(path.read_bytes() + DOC_STRING)
    entry = bundle.artifact("onnx")
    entry = msgspec.structs.replace(entry, sha256=sha256_file(path), bytes=path.stat().st_size)
    manifest = msgspec.structs.replace(bundle.manifest, artifacts={"onnx": entry})
    (new / MANIFEST_FILE).write_bytes(encode_manifest(manifest))
    return base, new


def told_slower(run, folder, factor):
    """The same run as if every timed inference of it had taken `factor` times as long."""
    folder.mkdir()
    (folder / JOB_FILE).write_bytes((run.folder / JOB_FILE).read_bytes())
    with RecordLog.open(folder) as log:
        for result in run.visits.values():
            for record in result.records:
                if isinstance(record, Samples):
                    latencies = tuple(ns * factor for ns in record.latencies_ns)
                    record = msgspec.structs.replace(record, latencies_ns=latencies)
                log.append([record])
    return read_run(folder)


def test_a_suspected_regression_is_measured_again_with_both_real_bundles(
    bundles, tmp_path, capsys, monkeypatch
):
    settings = msgspec.structs.replace(SETTINGS, rounds=2)
    for path, name in zip(bundles, ("base", "new")):
        run = run_bench([BenchRow(path)], device=HostDevice(), out=tmp_path / f"run-{name}", preset=settings)
    slow = told_slower(run, tmp_path / "run-slow", 1000)
    # With two rounds nothing is sure; what is suspected does not depend on that, at three orders of magnitude.
    arguments = [
        "compare",
        tmp_path / "run-base",
        slow.folder,
        "--drift",
        "0",
        "--confirm",
        "--confirm-rounds",
        "3",
    ]
    arguments += ["--base-bundles", tmp_path / "base", "--new-bundles", tmp_path / "new"]
    status, out, err = run_cli(capsys, *arguments, "--confirm-dir", tmp_path / "again", "--json")
    found = json.loads(out)
    assert status == (FAILED if found["failed"] else 0), err
    (row,) = found["rows"]
    assert row["evidence"] == "paired"
    assert row["ratio"]["rounds"] == 3
    assert (
        0.01 < row["ratio"]["value"] < 100
    )  # what this machine says, and not the thousandfold that it was told
    (folder,) = (tmp_path / "again").iterdir()
    assert row["confirmed"] == str(folder)
    again = read_run(folder)
    assert again.missing == ()
    hashes = {row.artifact.sha256 for row in again.job.rows}
    assert hashes == {read_bundle(path).artifact("onnx").sha256 for path in bundles}
    pids = [record.pid for result in again.visits.values() for record in result.records[:1]]
    assert len(set(pids)) == 3 * 3
