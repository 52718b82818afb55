"""Whatever the native runner is given, it ends with a record or a word, never with a signal or half a record."""

from __future__ import annotations

import random
import struct
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from finet_deploy.bench.protocol import End, Invalid, Start
from finet_deploy.runner import runner_command
from tests.device.runner_native import (
    FUZZ,
    RUNTIMES,
    copy_runner,
    folder_or_skip,
    requests_for,
    run_native,
    shared_tiny,
    with_artifact,
    with_golden,
)

NO_REQUEST, NO_RECORDS = 2, 3


@pytest.fixture(scope="session")
def requests(tmp_path_factory):
    folder_or_skip()
    return requests_for(shared_tiny(tmp_path_factory))


def invalid(done) -> Invalid:
    """The last record, which must be an `invalid` one after a `start`."""
    assert done.status == 1, done.stderr
    assert isinstance(done.records[0], Start)
    assert isinstance(done.last, Invalid)
    assert "\n" not in done.last.reason
    return done.last


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_damaged_model_is_a_record_and_never_a_signal(requests, tmp_path, runtime):
    """The job vouches for the damaged file, so that the runtime does see it. Some flips do no harm."""
    data = Path(requests[runtime].artifact_path).read_bytes()
    rng = random.Random(0)
    reasons = []
    for number in range(60):
        broken = bytearray(data)
        for _ in range(rng.choice((1, 1, 8, 64))):
            broken[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path = tmp_path / f"model{number}"
        path.write_bytes(bytes(broken))
        done = run_native(with_artifact(requests[runtime], path), tmp_path)
        assert done.status in (0, 1), (number, done.status, done.stderr[-500:])
        assert isinstance(done.last, (End, Invalid))
        reasons += [done.last.reason] if isinstance(done.last, Invalid) else []
    assert len(reasons) > 10
    assert any(runtime in reason for reason in reasons)


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_model_that_was_cut_off_is_a_record(requests, tmp_path, runtime, keep):
    data = Path(requests[runtime].artifact_path).read_bytes()
    (tmp_path / "model").write_bytes(data[: int(keep * len(data))])
    last = invalid(run_native(with_artifact(requests[runtime], tmp_path / "model"), tmp_path))
    assert last.phase == "load"


def test_a_crash_of_the_runtime_leaves_a_record_that_names_the_signal(requests, tmp_path):
    """A library that crashes on loading stands for a runtime that crashes on a file."""
    import shutil
    import subprocess

    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no compiler")
    folder = copy_runner(folder_or_skip(), tmp_path / "runner")
    (tmp_path / "crash.c").write_text(
        "#include <signal.h>\n__attribute__((constructor)) static void f(void) { raise(SIGNAL); }\n"
    )
    for name in ("SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE"):
        out = folder / "lib" / "libonnxruntime.so.1"
        out.unlink(missing_ok=True)
        command = [compiler, "-shared", "-fPIC", f"-DSIGNAL={name}", "crash.c", "-o", str(out)]
        subprocess.run(command, cwd=tmp_path, check=True)
        done = run_native(requests["onnxruntime"], tmp_path / name, command=runner_command(folder))
        last = invalid(done)
        assert (last.phase, last.signal) == ("load", name)
        assert name in last.reason


@pytest.mark.parametrize(
    ("runtime", "library"),
    [
        ("onnxruntime", "libonnxruntime.so.1"),
        ("executorch", "libfinet_executorch.so"),
        ("executorch", "libexecutorch_backend_xnnpack.so"),
        ("executorch", "libexecutorch.so"),
    ],
)
def test_an_absent_library_is_a_record_that_names_it(requests, tmp_path, runtime, library):
    folder = copy_runner(folder_or_skip(), tmp_path / "runner")
    (folder / "lib" / library).unlink()
    last = invalid(run_native(requests[runtime], tmp_path / "run", command=runner_command(folder)))
    assert last.phase == "load"
    assert library in last.reason
    assert "build or push it again" in last.reason


@pytest.mark.parametrize(
    "shape", [(1, 3, 31, 32), (3, 32, 32), (1, 3, 64, 64), (1, 32, 32, 3), (0, 3, 32, 32), ()]
)
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_an_input_of_another_size_is_refused_before_the_runtime_sees_it(requests, tmp_path, runtime, shape):
    tensors = load_file(requests[runtime].golden_path)
    tensors["input.photo_0"] = np.zeros(shape, np.float32)
    save_file(tensors, tmp_path / "golden.safetensors")
    last = invalid(
        run_native(with_golden(requests[runtime], tmp_path / "golden.safetensors"), tmp_path / "run")
    )
    assert last.phase == "first"
    assert "input has shape" in last.reason


def test_an_input_that_is_not_fp32_is_refused(requests, tmp_path):
    tensors = load_file(requests["onnxruntime"].golden_path)
    tensors["input.photo_0"] = tensors["input.photo_0"].astype(np.float64)
    save_file(tensors, tmp_path / "golden.safetensors")
    golden = with_golden(requests["onnxruntime"], tmp_path / "golden.safetensors")
    assert "not fp32" in invalid(run_native(golden, tmp_path / "run")).reason


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_missing_files_are_named(requests, tmp_path, runtime):
    request = msgspec.structs.replace(requests[runtime], golden_path=str(tmp_path / "absent.safetensors"))
    last = invalid(run_native(request, tmp_path))
    assert "absent.safetensors" in last.reason
    request = msgspec.structs.replace(requests[runtime], artifact_path=str(tmp_path / "absent.pte"))
    done = run_native(request, tmp_path)
    assert (done.status, done.last.phase) == (1, "start")
    assert "absent.pte" in done.last.reason


def test_names_with_quotes_newlines_and_bytes_that_are_no_text_are_data(requests, tmp_path):
    strange = tmp_path / 'a"b\n$(touch evil)\\'
    request = msgspec.structs.replace(requests["executorch"], golden_path=str(strange))
    last = run_native(request, tmp_path).last
    assert "$(touch evil)" in last.reason
    assert not (tmp_path / "evil").exists()


def test_a_format_that_it_does_not_have_is_a_record_with_what_to_do(requests, tmp_path):
    request = requests["executorch"]
    artifact = msgspec.structs.replace(request.row.artifact, format="ptl", runtime="torch_mobile")
    request = msgspec.structs.replace(request, row=msgspec.structs.replace(request.row, artifact=artifact))
    assert "no runtime for 'ptl'" in invalid(run_native(request, tmp_path)).reason


HEADERS = st.recursive(
    st.none() | st.integers() | st.text(max_size=5) | st.just("F32"),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["input.photo_0", "output.photo_0", "dtype", "shape", "data_offsets"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=10,
)


@FUZZ
@given(
    header=HEADERS.map(msgspec.json.encode) | st.binary(max_size=40),
    rest=st.binary(max_size=100),
    lie=st.integers(-9, 9),
)
def test_any_golden_file_is_read_or_refused(requests, tmp_path, header, rest, lie):
    path = tmp_path / "golden.safetensors"
    path.write_bytes(struct.pack("<q", max(0, len(header) + lie)) + header + rest)
    last = invalid(run_native(with_golden(requests["executorch"], path), tmp_path / "run"))
    assert last.phase in ("load", "first")


ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "F64", "BF16", ""]),
        "shape": st.lists(st.integers(-2, 1 << 62), max_size=10),
        "data_offsets": st.lists(st.integers(-5, 1 << 63), max_size=3),
    }
)


@FUZZ
@given(entry=ENTRIES)
def test_any_size_and_place_of_a_golden_tensor_is_checked(requests, tmp_path, entry):
    header = msgspec.json.encode({"input.photo_0": entry, "output.photo_0": entry})
    path = tmp_path / "golden.safetensors"
    path.write_bytes(struct.pack("<q", len(header)) + header + bytes(64))
    invalid(run_native(with_golden(requests["executorch"], path), tmp_path / "run"))


@FUZZ
@given(data=st.data())
def test_a_request_that_is_none_is_a_word_on_stderr_and_no_records(requests, tmp_path, data):
    whole = msgspec.json.encode(requests["executorch"])
    kind = data.draw(st.sampled_from(["cut", "garbage", "field"]))
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
        where[name] = data.draw(st.none() | st.just([]) | st.just(-1) | st.just({"a": 1}))
        if name == "output_limits" and isinstance(where[name], (dict, list)):
            where[name] = "text"  # an empty list of checks would be readable
        request = msgspec.json.encode(tree)
    done = run_native(request, tmp_path)
    if kind == "field" and name == "output_limits":
        assert done.status in (0, 1, NO_REQUEST)  # names of inputs that are not there
    else:
        assert done.status == NO_REQUEST
        assert "not a visit request" in done.stderr
        assert done.records == []


def test_a_deeply_nested_request_is_refused(tmp_path):
    folder_or_skip()
    assert run_native(b"[" * 500_000, tmp_path).status == NO_REQUEST
    assert run_native(b'{"a":' * 100_000, tmp_path).status == NO_REQUEST
    assert run_native(b" " * ((1 << 20) + 1), tmp_path).status == NO_REQUEST


@pytest.mark.parametrize(
    "arguments", [(), ("a",), ("a", "b", "c"), ("a", "b", "--what"), ("a", "b", "--outputs")]
)
def test_a_wrong_call_says_how_it_is_called(tmp_path, arguments):
    import subprocess

    folder = folder_or_skip()
    done = subprocess.run(["/bin/sh", str(folder / "run.sh"), *arguments], cwd=tmp_path, capture_output=True)
    assert done.returncode == NO_REQUEST
    assert b"usage: finet-runner" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_records_that_cannot_be_written_are_told(requests, tmp_path):
    import subprocess

    (tmp_path / "request.json").write_bytes(msgspec.json.encode(requests["executorch"]))
    command = [*runner_command(folder_or_skip()), "request.json", "absent/records.jsonl"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True)
    assert done.returncode == NO_RECORDS
    assert b"cannot write" in done.stderr
    command[-1] = "/dev/full"
    done = subprocess.run(
        [*command[:-1], "records.jsonl"], cwd=tmp_path, capture_output=True, preexec_fn=_small_files
    )
    assert done.returncode == NO_RECORDS


def _small_files() -> None:
    """No file may grow beyond 10 bytes: the disk is full."""
    import resource
    import signal

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, 10))


def test_outputs_that_cannot_be_written_make_the_visit_invalid(requests, tmp_path):
    done = run_native(requests["executorch"], tmp_path, "--outputs", "absent/outputs.bin")
    assert invalid(done).phase == "check"


def test_a_folder_whose_name_the_loader_cannot_take_is_refused(tmp_path):
    import subprocess

    folder = copy_runner(folder_or_skip(), tmp_path / "a:b")
    done = subprocess.run(["/bin/sh", str(folder / "run.sh"), "--version"], capture_output=True, text=True)
    assert done.returncode == NO_REQUEST
    assert "move it" in done.stderr
