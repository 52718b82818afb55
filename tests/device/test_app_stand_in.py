"""The app's own code on this machine's Java: the Python worker's records, order and verdicts. Built beforehand with
`finet-deploy app build --stand-in`; its times are no phone's."""

from __future__ import annotations

import os
import random
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from finet_deploy.app.libraries import libraries
from finet_deploy.app.standin import stand_in_command, stand_in_folder
from finet_deploy.bench.plan import BenchRow
from finet_deploy.bench.protocol import End, Invalid, Load, Start, decode_record, encode_record
from finet_deploy.bench.records import VisitResult
from finet_deploy.bench.run import run_bench
from finet_deploy.bench.validity import visit_problem
from finet_deploy.devices.host import HostDevice
from finet_deploy.errors import FinetDeployError
from finet_deploy.runtimes import open_session
from finet_deploy.verify.compare import compare
from tests.device.runner_native import ONCE, export_tiny, requests_for, run_native, with_artifact, with_golden

NO_REQUEST, NO_RECORDS = 2, 3
AGREEMENT = 1e-6  # norm-relative, with Python's ONNX Runtime
FUZZ = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)


def command_or_skip() -> tuple[str, ...]:
    try:
        return stand_in_command(stand_in_folder())
    except FinetDeployError as error:
        pytest.skip(str(error))


def run_app(request, scratch, *options):
    return run_native(request, scratch, *options, command=command_or_skip())


@pytest.fixture(scope="session")
def bundle(tmp_path_factory):
    command_or_skip()
    return export_tiny(tmp_path_factory.mktemp("app") / "tiny")


@pytest.fixture(scope="session")
def request_(bundle):
    return requests_for(bundle)["onnxruntime"]


def invalid(done) -> Invalid:
    """The last record, which must be an `invalid` one after a `start`."""
    assert done.status == 1, done.stderr
    assert isinstance(done.records[0], Start)
    assert isinstance(done.last, Invalid)
    assert "\n" not in done.last.reason
    return done.last


def test_every_line_is_what_python_would_have_written(request_, tmp_path):
    done = run_app(request_, tmp_path)
    assert done.status == 0, done.stderr
    lines = (tmp_path / "records.jsonl").read_bytes().splitlines(keepends=True)
    assert lines == [encode_record(decode_record(line)) for line in lines]


def test_records_types_and_probes_are_those_of_the_python_worker(request_, tmp_path):
    ours = VisitResult(0, tuple(run_app(request_, tmp_path).records))
    theirs = VisitResult(0, tuple(HostDevice().run_visit(request_)))
    assert [type(record) for record in ours.records] == [type(record) for record in theirs.records]
    assert visit_problem(ours, request_.row) is None
    assert ours.find(Start).affinity_cpus == theirs.find(Start).affinity_cpus
    assert "stand-in" in ours.find(Start).runner
    assert ours.find(Load).runtime_version == next(
        lib.version for lib in libraries() if lib.name == "onnxruntime"
    )
    state, other = ours.find(Start).state, theirs.find(Start).state
    for name in state.__struct_fields__:
        assert (getattr(state, name).value is None) == (getattr(other, name).value is None), name
    assert list(ours.find(End).output_errors) == list(theirs.find(End).output_errors)


def test_outputs_agree_with_python_on_every_golden_input(request_, tmp_path):
    done = run_app(request_, tmp_path, "--outputs", "outputs.bin")
    golden = load_file(request_.golden_path)
    session = open_session(request_.artifact_path, "onnx", threads=1)
    reference = {
        name.removeprefix("input."): session.run(value)
        for name, value in golden.items()
        if name.startswith("input.")
    }
    comparison = compare(reference, done.outputs())
    assert comparison.comparable and len(reference) >= 3
    assert comparison.max_error <= AGREEMENT
    for name, error in done.last.output_errors.items():
        expected = {name: golden[f"output.{name}"]}
        assert error == pytest.approx(compare(expected, {name: done.outputs()[name]}).max_error, rel=1e-9)


@pytest.mark.parametrize("threads", [1, 2])
def test_the_threads_that_really_run_are_read_back(bundle, tmp_path, threads):
    if len(os.sched_getaffinity(0)) < threads:
        pytest.skip(f"needs {threads} CPUs")
    request = requests_for(bundle, threads=threads)["onnxruntime"]
    load = next(record for record in run_app(request, tmp_path).records if isinstance(record, Load))
    assert load.threads == threads


def test_it_starts_on_the_cpus_that_it_was_given(request_, tmp_path):
    cpu = max(os.sched_getaffinity(0))
    (tmp_path / "request.json").write_bytes(msgspec.json.encode(request_))
    command = ["taskset", "-c", str(cpu), *command_or_skip(), "request.json", "records.jsonl"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    start = decode_record((tmp_path / "records.jsonl").read_bytes().splitlines()[0])
    assert start.affinity_cpus.value == (cpu,)


def test_a_whole_benchmark_runs_with_it(bundle, tmp_path):
    device = HostDevice(command=command_or_skip())
    settings_ = msgspec.structs.replace(ONCE, rounds=2, aa_row=True)
    done = run_bench(
        [BenchRow(bundle)], device=device, out=tmp_path / "run", preset=settings_, runtimes=["onnxruntime"]
    )
    assert not done.missing
    for index, result in done.visits.items():
        row = next(row for row in done.job.rows if row.id == done.job.visits[index].row)
        assert visit_problem(result, row) is None


def test_it_ends_with_the_process_that_started_it(request_, tmp_path):
    """A bench that is killed leaves no visit that would disturb the next one."""
    long = msgspec.structs.replace(
        ONCE, timed_min_seconds=60.0, timed_max_seconds=60.0, timed_max_runs=10_000_000
    )
    request = msgspec.structs.replace(request_, settings=long)
    (tmp_path / "request.json").write_bytes(msgspec.json.encode(request))
    command = [*command_or_skip(), "request.json", "records.jsonl"]
    code = f"import subprocess, time\nsubprocess.Popen({command!r}, cwd={str(tmp_path)!r})\ntime.sleep(100)"
    parent = subprocess.Popen([sys.executable, "-c", code])
    unfinished = tmp_path / "records.jsonl.unfinished"
    pid = None
    for _ in range(600):
        if unfinished.exists() and unfinished.read_bytes().endswith(b"\n"):
            pid = decode_record(unfinished.read_bytes().splitlines()[0]).pid
            break
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    assert pid is not None
    for _ in range(200):
        if not Path(f"/proc/{pid}").exists():
            return
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("it outlived its parent")


def test_a_damaged_model_is_a_record(request_, tmp_path):
    """The job vouches for the damaged file, so that the runtime does see it. Some flips do no harm."""
    data = Path(request_.artifact_path).read_bytes()
    rng = random.Random(0)
    reasons = []
    for number in range(20):
        broken = bytearray(data)
        for _ in range(rng.choice((1, 8, 64))):
            broken[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path = tmp_path / f"model{number}"
        path.write_bytes(bytes(broken))
        done = run_app(with_artifact(request_, path), tmp_path)
        assert done.status in (0, 1), (number, done.status, done.stderr[-500:])
        assert isinstance(done.last, (End, Invalid))
        reasons += [done.last.reason] if isinstance(done.last, Invalid) else []
    assert len(reasons) > 5
    assert any("onnxruntime cannot load this file" in reason for reason in reasons)


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.999])
def test_a_model_that_was_cut_off_is_a_record(request_, tmp_path, keep):
    data = Path(request_.artifact_path).read_bytes()
    (tmp_path / "model").write_bytes(data[: int(keep * len(data))])
    assert invalid(run_app(with_artifact(request_, tmp_path / "model"), tmp_path)).phase == "load"


def test_another_file_than_the_job_names_is_refused(request_, tmp_path):
    (tmp_path / "model").write_bytes(b"other")
    last = invalid(
        run_app(msgspec.structs.replace(request_, artifact_path=str(tmp_path / "model")), tmp_path)
    )
    assert (last.phase, "SHA-256 differs" in last.reason) == ("load", True)


@pytest.mark.parametrize("shape", [(1, 3, 31, 32), (3, 32, 32), (1, 32, 32, 3), (0, 3, 32, 32), ()])
def test_an_input_of_another_size_is_refused_before_the_runtime_sees_it(request_, tmp_path, shape):
    tensors = load_file(request_.golden_path)
    tensors["input.photo_0"] = np.zeros(shape, np.float32)
    save_file(tensors, tmp_path / "golden.safetensors")
    last = invalid(run_app(with_golden(request_, tmp_path / "golden.safetensors"), tmp_path / "run"))
    assert last.phase == "first"
    assert "input has shape" in last.reason


def test_missing_and_strange_files_are_named(request_, tmp_path):
    absent = msgspec.structs.replace(request_, golden_path=str(tmp_path / "absent.safetensors"))
    assert "absent.safetensors" in invalid(run_app(absent, tmp_path)).reason
    done = run_app(msgspec.structs.replace(request_, artifact_path=str(tmp_path / "absent.onnx")), tmp_path)
    assert (done.status, done.last.phase) == (1, "start")
    strange = tmp_path / 'a"b\n$(touch evil)\\é'
    last = run_app(msgspec.structs.replace(request_, golden_path=str(strange)), tmp_path).last
    assert "$(touch evil)" in last.reason and "é" in last.reason
    assert not (tmp_path / "evil").exists()


def test_a_format_that_it_does_not_have_is_a_record_with_what_to_do(request_, tmp_path):
    artifact = msgspec.structs.replace(request_.row.artifact, format="ptl", runtime="torch_mobile")
    request = msgspec.structs.replace(request_, row=msgspec.structs.replace(request_.row, artifact=artifact))
    assert "no runtime for 'ptl'" in invalid(run_app(request, tmp_path)).reason


def test_nothing_runs_while_the_runtime_could_send_telemetry(request_, tmp_path):
    folder = Path(command_or_skip()[1]).parent
    (tmp_path / "request.json").write_bytes(msgspec.json.encode(request_))
    jars = f"{folder}/app.jar:{folder}/onnxruntime.jar"
    command = ["java", f"-Donnxruntime.native.path={folder}/native", "-cp", jars, "org.finetdeploy.jvm.Main"]
    environment = {"PATH": os.environ["PATH"]}
    subprocess.run(
        [*command, "request.json", "records.jsonl"], cwd=tmp_path, env=environment, capture_output=True
    )
    last = decode_record((tmp_path / "records.jsonl").read_bytes().splitlines()[-1])
    assert isinstance(last, Invalid) and "ORT_DISABLE_TELEMETRY=1" in last.reason


@FUZZ
@given(header=st.binary(max_size=40), rest=st.binary(max_size=100), lie=st.integers(-9, 9))
def test_any_golden_file_is_read_or_refused(request_, tmp_path, header, rest, lie):
    path = tmp_path / "golden.safetensors"
    path.write_bytes(struct.pack("<q", max(0, len(header) + lie)) + header + rest)
    assert invalid(run_app(with_golden(request_, path), tmp_path / "run")).phase == "load"


@FUZZ
@given(data=st.data())
def test_a_request_that_is_none_is_a_word_on_stderr_and_no_records(request_, tmp_path, data):
    whole = msgspec.json.encode(request_)
    kind = data.draw(st.sampled_from(["cut", "garbage", "field", "unknown"]))
    if kind == "cut":
        request = whole[: data.draw(st.integers(0, len(whole) - 1))]
    elif kind == "garbage":
        request = data.draw(st.binary(max_size=100))
    else:
        tree = msgspec.json.decode(whole)
        places = [
            (tree, "schema_version"), (tree, "artifact_path"), (tree["visit"], "index"), (tree["row"], "threads"),
            (tree["settings"], "timed_max_runs"), (tree["settings"], "warmup_min_seconds"),
            (tree["row"]["golden"], "output_limits"), (tree["row"]["artifact"], "format"),
        ]  # fmt: skip
        where, name = data.draw(st.sampled_from(places))
        where[name if kind == "field" else "unknown"] = data.draw(
            st.none() | st.just([]) | st.just(-1) | st.just({"a": "b"})
        )
        request = msgspec.json.encode(tree)
    done = run_app(request, tmp_path)
    assert (done.status, done.records) == (NO_REQUEST, [])
    assert "not a visit request" in done.stderr


def test_a_huge_or_deeply_nested_request_is_refused(tmp_path):
    command_or_skip()
    for request in (b"[" * 500_000, b'{"a":' * 100_000, b" " * ((1 << 20) + 1)):
        done = run_app(request, tmp_path)
        assert done.status == NO_REQUEST
        assert "Exception" not in done.stderr


@pytest.mark.parametrize(
    "arguments", [(), ("a",), ("a", "b", "c"), ("a", "b", "--what"), ("a", "b", "--outputs")]
)
def test_a_wrong_call_says_how_it_is_called(tmp_path, arguments):
    done = subprocess.run([*command_or_skip(), *arguments], cwd=tmp_path, capture_output=True)
    assert done.returncode == NO_REQUEST
    assert b"usage: finet-app-jvm" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_records_and_outputs_that_cannot_be_written_are_told(request_, tmp_path):
    (tmp_path / "request.json").write_bytes(msgspec.json.encode(request_))
    command = [*command_or_skip(), "request.json", "absent/records.jsonl"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True)
    assert done.returncode == NO_RECORDS
    assert b"cannot write" in done.stderr
    assert invalid(run_app(request_, tmp_path, "--outputs", "absent/outputs.bin")).phase == "check"
