"""The native runner on this machine: the Python worker's protocol, figures and verdicts, in milliseconds."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from finet_deploy.bench.plan import BenchRow
from finet_deploy.bench.protocol import End, Invalid, Load, Samples, Start, Warmup, encode_record
from finet_deploy.bench.records import VisitResult
from finet_deploy.bench.run import resume_bench, run_bench
from finet_deploy.bench.summary import summarise
from finet_deploy.bench.validity import visit_problem
from finet_deploy.devices.host import HostDevice
from finet_deploy.errors import UsageError
from finet_deploy.files import sha256_bytes
from finet_deploy.report import render_markdown
from finet_deploy.runner.host import NativeHostRunner
from finet_deploy.runner.manifest import read_manifest
from finet_deploy.verify.compare import compare
from tests.device.runner_native import (
    FUZZ,
    ONCE,
    RUNTIMES,
    folder_or_skip,
    requests_for,
    run_native,
    shared_tiny,
    with_artifact,
    with_golden,
)


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    folder_or_skip()
    return shared_tiny(tmp_path_factory)


@pytest.fixture(scope="session")
def requests(bundle):
    return requests_for(bundle)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_records_have_the_fields_and_the_order_of_the_python_worker(requests, tmp_path, runtime):
    native = run_native(requests[runtime], tmp_path).records
    python = HostDevice().run_visit(requests[runtime])
    assert [type(record) for record in native] == [type(record) for record in python]
    for ours, theirs in zip(native, python):
        ours_keys = list(msgspec.json.decode(encode_record(ours)))
        assert ours_keys == list(msgspec.json.decode(encode_record(theirs)))
    raw = (tmp_path / "records.jsonl").read_bytes().splitlines()
    for line, theirs in zip(raw, python):
        assert list(msgspec.json.decode(line)) == list(msgspec.json.decode(encode_record(theirs)))


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_outputs_hash_version_and_probes_are_those_of_the_python_worker(requests, tmp_path, runtime):
    native = VisitResult(0, tuple(run_native(requests[runtime], tmp_path).records))
    python = VisitResult(0, tuple(HostDevice().run_visit(requests[runtime])))
    assert visit_problem(native, requests[runtime].row) is None
    assert native.find(Load).runtime_version == python.find(Load).runtime_version
    assert native.find(Start).affinity_cpus == python.find(Start).affinity_cpus
    assert native.find(Start).artifact_sha256 == python.find(Start).artifact_sha256
    ours, theirs = native.find(Start).state, python.find(Start).state
    for name in ours.__struct_fields__:
        assert (getattr(ours, name).value is None) == (getattr(theirs, name).value is None), name
    errors = native.find(End).output_errors
    assert list(errors) == list(python.find(End).output_errors)
    for name, error in python.find(End).output_errors.items():
        assert errors[name] == pytest.approx(error, abs=1e-7)
    assert native.find(End).peak_rss_mib.value < python.find(End).peak_rss_mib.value


def test_a_bench_with_the_native_runner_has_the_tables_of_any_bench(bundle, tmp_path):
    run = run_bench(
        [BenchRow(bundle)],
        device=NativeHostRunner(),
        out=tmp_path / "run",
        preset=msgspec.structs.replace(ONCE, rounds=2, aa_row=True),
        runtimes=RUNTIMES,
    )
    assert [comparison.runtime for comparison in summarise(run)] == list(RUNTIMES)
    assert all(row.valid_visits == 2 for comparison in summarise(run) for row in comparison.all_rows)
    assert all("native" in result.find(Start).runner for result in run.visits.values())


def test_a_runtime_that_it_lacks_is_left_out_and_told_or_refused_when_asked_for(bundle, tmp_path):
    run = run_bench([BenchRow(bundle)], device=NativeHostRunner(), out=tmp_path / "run", preset=ONCE)
    assert run.job.left_out == ("torch_mobile",) and run.job.runner == "native"
    assert {row.artifact.runtime for row in run.job.rows} == set(RUNTIMES)
    assert "this runner lacks the runtime: torch_mobile" in render_markdown([run])
    with pytest.raises(UsageError, match="has no torch_mobile"):
        run_bench(
            [BenchRow(bundle)],
            device=NativeHostRunner(),
            out=tmp_path / "other",
            preset=ONCE,
            runtimes=["torch_mobile"],
        )
    assert not (tmp_path / "other").exists()


def test_a_run_is_resumed_with_the_runner_that_it_was_started_with(bundle, tmp_path):
    out = tmp_path / "run"
    run_bench([BenchRow(bundle)], device=NativeHostRunner(), out=out, preset=ONCE, runtimes=RUNTIMES)
    with pytest.raises(UsageError, match="started with the native runner.*--runner native"):
        resume_bench(out, device=HostDevice())
    assert not resume_bench(out, device=NativeHostRunner()).missing


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("threads", [1, 2])
def test_threads_are_read_back(bundle, tmp_path, runtime, threads):
    if threads > len(os.sched_getaffinity(0)):
        pytest.skip("one CPU")
    done = run_native(requests_for(bundle, threads=threads)[runtime], tmp_path)
    assert VisitResult(0, tuple(done.records)).find(Load).threads == threads


@pytest.mark.parametrize(
    ("rule", "runs", "stopped"),
    [
        ({"timed_min_runs": 7}, 7, "minimum"),
        ({"timed_min_runs": 100, "timed_max_runs": 9}, 9, "max_runs"),
        ({"timed_min_runs": 1, "timed_min_seconds": 50.0, "timed_max_seconds": 0.0}, 1, "max_seconds"),
        ({"timed_min_runs": 2300}, 2300, "minimum"),
    ],
)
def test_loops_stop_by_the_same_rule_and_no_sample_is_lost(bundle, tmp_path, rule, runs, stopped):
    preset = msgspec.structs.replace(ONCE, **{"timed_max_runs": 5000, "timed_max_seconds": 60.0, **rule})
    done = run_native(requests_for(bundle, settings=preset)["executorch"], tmp_path)
    result = VisitResult(0, tuple(done.records))
    assert (done.last.runs, done.last.stopped_by) == (runs, stopped)
    assert len(result.latencies_ns) == runs
    assert sum(result.latencies_ns) / 1e6 == pytest.approx(done.last.total_ms)
    assert max(len(r.latencies_ns) for r in done.records if isinstance(r, Samples)) <= 1000
    assert result.find(Warmup).runs == 1


def test_all_golden_outputs_come_back_as_the_python_runtime_computes_them(bundle, requests, tmp_path):
    from finet_deploy.runtimes import run_isolated

    tensors = load_file(requests["onnxruntime"].golden_path)
    inputs = {name.removeprefix("input."): x for name, x in tensors.items() if name.startswith("input.")}
    for runtime, fmt in zip(RUNTIMES, ("pte", "onnx")):
        found = run_native(requests[runtime], tmp_path / fmt, "--outputs", "outputs.bin").outputs()
        expected = run_isolated(requests[runtime].artifact_path, fmt, inputs)
        assert set(found) == set(inputs)
        assert compare(expected, found).max_error < 1e-6
        assert not list((tmp_path / fmt).glob("*.part"))


OUTPUT = (1, 10)
values = st.floats(-1e300, 1e300) | st.sampled_from([0.0, -0.0, 1e-310, 1.0, np.nan, np.inf, -np.inf])


@FUZZ
@given(reference=st.lists(values, min_size=10, max_size=10), scale=st.sampled_from([0.0, 1e-320, 1.0, 1e300]))
def test_its_error_is_the_comparators(requests, tmp_path, reference, scale):
    """Golden outputs of every size and kind: the C++ figure is the one that the certificate's comparator gives."""
    request = requests["executorch"]
    tensors = load_file(request.golden_path)
    with np.errstate(over="ignore", invalid="ignore"):
        expected = (np.array(reference) * scale).reshape(OUTPUT)
    tensors["output.photo_0"] = expected
    golden = tmp_path / "golden.safetensors"
    save_file(tensors, golden)
    changed = with_golden(request, golden, output_limits={"photo_0": 1.0})
    done = run_native(changed, tmp_path / "run", "--outputs", "outputs.bin")
    comparison = compare({"photo_0": expected}, {"photo_0": done.outputs()["photo_0"]})
    found = done.last.output_errors["photo_0"]
    if comparison.comparable:
        assert found == pytest.approx(comparison.max_error, rel=1e-12)
    else:
        assert found is None


@pytest.mark.parametrize("output", [np.zeros((10,)), np.zeros((1, 9)), np.zeros((1, 0)), np.zeros((10, 1))])
def test_outputs_of_another_shape_are_no_number(requests, tmp_path, output):
    tensors = load_file(requests["onnxruntime"].golden_path)
    tensors["output.photo_0"] = output
    save_file(tensors, tmp_path / "golden.safetensors")
    done = run_native(with_golden(requests["onnxruntime"], tmp_path / "golden.safetensors"), tmp_path / "run")
    assert isinstance(done.last, End)
    assert done.last.output_errors["photo_0"] is None
    assert "not a number" in visit_problem(VisitResult(0, tuple(done.records)), requests["onnxruntime"].row)


@pytest.mark.parametrize(
    "size", [0, 1, 55, 56, 63, 64, 65, 119, 120, 128, (1 << 20) - 1, 1 << 20, (1 << 20) + 1]
)
def test_the_hash_is_sha_256_at_every_length_of_block(requests, tmp_path, size):
    data = np.random.default_rng(size).bytes(size)
    (tmp_path / "model.onnx").write_bytes(data)
    request = msgspec.structs.replace(requests["onnxruntime"], artifact_path=str(tmp_path / "model.onnx"))
    done = run_native(request, tmp_path)
    assert done.records[0].artifact_sha256 == sha256_bytes(data)
    assert "SHA-256 differs" in done.last.reason
    assert (done.status, done.last.phase) == (1, "load")


def test_an_onnx_runtime_visit_holds_nothing_of_executorch_and_nothing_of_the_system(requests, tmp_path):
    """The loader tells which files it opens."""
    folder = folder_or_skip()
    for runtime, other in zip(RUNTIMES, reversed(RUNTIMES)):
        loader, *words = read_manifest(folder).command
        command = [str(folder / loader), *(w if w.startswith("-") else str(folder / w) for w in words)]
        done = run_native(requests[runtime], tmp_path, command=("/usr/bin/env", "LD_DEBUG=files", *command))
        opened = [line.split()[-1] for line in done.stderr.splitlines() if "calling init: " in line]
        ours = [
            path for path in opened if not path.startswith("/lib")
        ]  # `env` was started by the system's loader
        assert any(runtime in name for name in ours)
        assert not any(other in name for name in ours)
        assert all(Path(path).is_relative_to(folder) for path in ours)
        assert {"libc.so.6", "libstdc++.so.6"} <= {Path(path).name for path in ours}


def test_a_runner_whose_bench_was_killed_does_not_go_on(bundle, tmp_path):
    long = msgspec.structs.replace(
        ONCE, timed_min_runs=10_000_000, timed_max_runs=10_000_000, timed_max_seconds=600.0
    )
    (tmp_path / "request.json").write_bytes(
        msgspec.json.encode(requests_for(bundle, settings=long)["executorch"])
    )
    run = str(folder_or_skip() / "run.sh")
    code = (
        "import subprocess, sys, time; "
        f"p = subprocess.Popen(['/bin/sh', {run!r}, 'request.json', 'records.jsonl']); "
        "print(p.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    pid = int(parent.stdout.readline())
    unfinished = tmp_path / "records.jsonl.unfinished"
    while not (unfinished.exists() and b'"warmup"' in unfinished.read_bytes()):
        time.sleep(0.02)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for _ in range(500):
        if not Path(f"/proc/{pid}").exists():
            break
        time.sleep(0.02)
    else:
        os.kill(pid, signal.SIGKILL)
        pytest.fail("the runner outlived its bench")
    assert not (tmp_path / "records.jsonl").exists()


def test_it_tells_what_it_is(tmp_path):
    folder = folder_or_skip()
    done = subprocess.run(["/bin/sh", str(folder / "run.sh"), "--version"], capture_output=True, text=True)
    assert done.stdout.startswith("finet-deploy ")
    assert "native" in done.stdout


def test_invalid_records_are_the_protocols(requests, tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"no model")
    done = run_native(with_artifact(requests["onnxruntime"], tmp_path / "m.onnx"), tmp_path)
    assert isinstance(done.last, Invalid)
    assert (done.status, done.last.phase, done.last.signal) == (1, "load", None)
