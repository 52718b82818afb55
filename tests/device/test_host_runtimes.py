"""A real bundle, measured for real in the three runtimes, each visit a fresh process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from finet_deploy.bench.plan import BenchRow, visit_request
from finet_deploy.bench.protocol import End, Load, Start, Warmup
from finet_deploy.bench.records import VisitResult
from finet_deploy.bench.run import run_bench
from finet_deploy.bench.summary import summarise
from finet_deploy.bench.validity import visit_problem
from finet_deploy.devices.host import HostDevice
from finet_deploy.report import render_csv, render_markdown
from tests.bench_fakes import SETTINGS
from tests.device.runner_native import shared_tiny

RUNTIMES = ("executorch", "onnxruntime", "torch_mobile")
SMALL = msgspec.structs.replace(SETTINGS, rounds=1, visit_timeout_seconds=120.0)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    """A small network with two FBN layers, for all three runtimes."""
    return shared_tiny(tmp_path_factory)


@pytest.fixture(scope="session")
def run(bundle, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    return run_bench([BenchRow(bundle)], device=HostDevice(), out=out, preset=SMALL)


def test_all_runtimes_run_the_bundle_and_every_visit_counts(run):
    rows = {row.id: row for row in run.job.rows}
    problems = {v.index: visit_problem(run.visits[v.index], rows[v.row]) for v in run.job.visits}
    assert set(problems.values()) == {None}
    assert {comparison.runtime for comparison in summarise(run)} == set(RUNTIMES)
    assert len(problems) == 3 * 2


def test_each_visit_is_a_process_of_its_own_and_warms_up_in_it(run):
    pids = [result.find(Start).pid for result in run.visits.values()]
    assert len(set(pids)) == len(pids)
    for result in run.visits.values():
        assert result.find(Warmup).runs >= SMALL.warmup_min_runs
        assert result.find(End).runs >= SMALL.timed_min_runs


def test_records_tell_versions_threads_memory_and_outputs(run):
    for result in run.visits.values():
        load, end = result.find(Load), result.find(End)
        assert load.threads == 1
        assert load.runtime_version[0].isdigit()
        assert load.load_ms > 0 < load.import_ms
        assert list(end.output_errors) == ["photo_0", "noise_0"]
        assert max(end.output_errors.values()) < 1e-5
        assert end.peak_rss_mib.value > 10


def test_the_report_has_a_table_for_each_runtime(run):
    text = render_markdown([run])
    assert text.count("| A/A: tiny |") == 3
    assert render_csv([run]).count("\n") == 1 + 6


def test_two_threads_are_read_back_from_every_runtime(bundle, tmp_path):
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one CPU")
    settings = msgspec.structs.replace(SMALL, aa_row=False)
    run = run_bench([BenchRow(bundle)], device=HostDevice(), out=tmp_path / "run", preset=settings, threads=2)
    assert [result.find(Load).threads for result in run.visits.values()] == [2, 2, 2]
    assert all(summary.valid_visits == 1 for c in summarise(run) for summary in c.rows)


def test_a_worker_for_onnx_runtime_never_imports_torch(run, tmp_path):
    visit = next(v for v in run.job.visits if v.row.startswith("onnxruntime"))
    (tmp_path / "request.json").write_bytes(msgspec.json.encode(visit_request(run.job, visit, run.folder)))
    code = (
        "import json, sys; from finet_deploy.devices import worker; status = worker.main(sys.argv[1:]); "
        "print(json.dumps([status, sorted(m for m in sys.modules if '.' not in m)]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "request.json"), str(tmp_path / "records.jsonl")]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    status, modules = json.loads(subprocess.run(command, env=env, capture_output=True, check=True).stdout)
    assert status == 0
    assert "onnxruntime" in modules
    assert not {"torch", "executorch", "scipy", "pandas", "sklearn", "onnx"} & set(modules)


def test_a_changed_artifact_is_told_by_its_hash(run, tmp_path):
    visit = next(v for v in run.job.visits if v.row.startswith("onnxruntime"))
    request = visit_request(run.job, visit, run.folder)
    other = tmp_path / "model.onnx"
    other.write_bytes(Path(request.artifact_path).read_bytes() + b"\x00\x00")
    records = HostDevice().run_visit(msgspec.structs.replace(request, artifact_path=str(other)))
    assert records[0].artifact_sha256 != request.row.artifact.sha256


def test_outputs_of_another_network_are_refused(run, tmp_path):
    """Golden outputs that belong to other weights: the file is whole, only the function is another one."""
    from safetensors.numpy import load_file, save_file

    visit = next(v for v in run.job.visits if v.row.startswith("onnxruntime"))
    request = visit_request(run.job, visit, run.folder)
    tensors = load_file(request.golden_path)
    tensors["output.noise_0"] = tensors["output.noise_0"] * (1 + 1e-4)
    save_file(tensors, tmp_path / "golden.safetensors")
    records = HostDevice().run_visit(
        msgspec.structs.replace(request, golden_path=str(tmp_path / "golden.safetensors"))
    )
    assert records[-1].output_errors["photo_0"] < 1e-5
    assert 5e-5 < records[-1].output_errors["noise_0"] < 2e-4
    assert "wrong output on 'noise_0'" in visit_problem(VisitResult(visit.index, tuple(records)), request.row)
