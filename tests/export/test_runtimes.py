"""Sessions: what they refuse before a runtime sees it, the threads they read back, and what damage does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import finet_deploy.runtimes as runtimes
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.export import Bundle
from finet_deploy.runtimes import FORMATS, available_runtimes, open_session, parse_formats, run_isolated, warm
from finet_deploy.runtimes.executorch import _without_known_noise

REPOSITORY = Path(__file__).parents[2]
ALL = pytest.mark.parametrize("fmt", list(FORMATS))


def image(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape or (1, 3, 16, 16)).astype(np.float32)


def in_fresh_process(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@ALL
def test_threads_are_read_back_from_the_runtime(pristine: Bundle, fmt: str) -> None:
    code = "import os\nfrom finet_deploy.runtimes import open_session\n"
    code += f"for n in (2, 1): print(open_session({str(pristine.artifact_path(fmt))!r}, {fmt!r}, threads=n).threads)"
    assert in_fresh_process(code).split() == ["2", "1"]


def test_onnxruntime_starts_no_thread_but_those_asked_for_and_loads_no_torch(pristine: Bundle) -> None:
    code = f"""
import os, sys
from finet_deploy.runtimes import open_session
os.environ.pop("ORT_DISABLE_TELEMETRY", None)
session = open_session({str(pristine.artifact_path("onnx"))!r}, "onnx", threads=1)
print(session.threads, len(os.listdir("/proc/self/task")), os.environ["ORT_DISABLE_TELEMETRY"], "torch" in sys.modules)
"""
    assert in_fresh_process(code) == "1 1 1 False"


@ALL
def test_run_and_bind_give_the_same_output_and_bind_is_the_bare_call(pristine: Bundle, fmt: str) -> None:
    session = open_session(pristine.artifact_path(fmt), fmt, threads=1)
    x = image()
    y = session.run(x)
    assert y.shape == (1, 5)
    assert y.dtype == np.float32
    raw = session.bind(x)()
    raw = raw[0] if isinstance(raw, list) else raw
    np.testing.assert_array_equal(np.asarray(raw), y)
    assert session.input_shape == (1, 3, 16, 16)
    assert session.version == available_runtimes()[session.runtime]


@ALL
def test_an_output_is_not_overwritten_by_the_next_run(pristine: Bundle, fmt: str) -> None:
    session = open_session(pristine.artifact_path(fmt), fmt, threads=1)
    first = session.run(image())
    kept = first.copy()
    session.run(image() + 1)
    np.testing.assert_array_equal(first, kept)


@ALL
@pytest.mark.parametrize(
    ("x", "found"),
    [
        (np.ascontiguousarray(image().transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2), "not contiguous NCHW"),
        (image(1, 3, 16, 32)[..., ::2], "not contiguous NCHW"),
        (
            image(2, 3, 16, 16),
            r"shape \(2, 3, 16, 16\), this file takes \(1, 3, 16, 16\).*one image at a time",
        ),
        (image(3, 16, 16), "shape"),
        (image().astype(np.float64), "float64, not float32"),
        (image().tolist(), "list, not a numpy array"),
    ],
    ids=["channels_last", "strided", "batch", "unbatched", "float64", "list"],
)
def test_a_wrong_input_is_refused_before_the_runtime_sees_it(
    pristine: Bundle, fmt: str, x, found: str
) -> None:
    session = open_session(pristine.artifact_path(fmt), fmt, threads=1)
    for call in (session.run, session.bind):
        with pytest.raises(UsageError, match=found):
            call(x)


@ALL
def test_odd_strides_of_a_dimension_of_one_and_read_only_arrays_are_fine(pristine: Bundle, fmt: str) -> None:
    session = open_session(pristine.artifact_path(fmt), fmt, threads=1)
    x = image()
    odd = np.lib.stride_tricks.as_strided(x, strides=(4, *x.strides[1:]), writeable=False)
    np.testing.assert_array_equal(session.run(odd), session.run(x))


@ALL
def test_no_thread_is_a_usage_error(pristine: Bundle, fmt: str) -> None:
    for threads in (0, -1):
        with pytest.raises(UsageError, match=f"threads={threads} is not positive"):
            open_session(pristine.artifact_path(fmt), fmt, threads=threads)


def test_unknown_formats_are_refused_with_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="did you mean 'onnx'"):
        open_session(tmp_path, "onxx", threads=1)
    with pytest.raises(UsageError, match="use pte, onnx, ptl"):
        parse_formats("pte,tflite")
    with pytest.raises(UsageError, match="no format"):
        parse_formats(" , ")
    assert parse_formats("ptl, pte,ptl") == ("ptl", "pte")


@ALL
def test_a_missing_file_and_a_missing_runtime_say_so(tmp_path: Path, fmt: str, monkeypatch) -> None:
    with pytest.raises(FinetDeployError, match="no such file"):
        open_session(tmp_path / "no", fmt, threads=1)
    monkeypatch.setattr(runtimes, "available_runtimes", lambda: dict.fromkeys(FORMATS.values()))
    with pytest.raises(FinetDeployError, match=r"is not installed; pip install 'finet-deploy"):
        open_session(tmp_path / "no", fmt, threads=1)


@ALL
@pytest.mark.parametrize("keep", [0, 10, 400])
def test_a_truncated_file_is_an_error_that_names_file_and_runtime(
    pristine: Bundle, tmp_path: Path, fmt: str, keep: int
) -> None:
    path = tmp_path / f"cut.{fmt}"
    path.write_bytes(pristine.artifact_path(fmt).read_bytes()[:keep])
    with pytest.raises(FinetDeployError, match=rf"{FORMATS[fmt]} cannot load this file: .*cut\.{fmt}"):
        open_session(path, fmt, threads=1)


def test_a_pte_that_kills_its_process_does_not_kill_ours(pristine: Bundle, tmp_path: Path) -> None:
    """XNNPACK's payload is not verified on loading: a damaged one ends the process by a signal."""
    data = pristine.artifact_path("pte").read_bytes()
    payload = data.index(b"XN01")  # the delegate's own flatbuffer identifier; its tensors and nodes follow
    found = []
    for offset in (128, 232):
        damaged = bytearray(data)
        damaged[payload + offset] ^= 0xFF
        path = tmp_path / "damaged.pte"
        path.write_bytes(damaged)
        with pytest.raises(FinetDeployError, match=r"damaged\.pte") as caught:
            run_isolated(path, "pte", {"x": image()})
        found.append(str(caught.value))
    assert any("the runtime of pte crashed (SIG" in message for message in found), found


def isolated(bundle: Bundle, fmt: str = "ptl") -> np.ndarray:
    return run_isolated(bundle.artifact_path(fmt), fmt, {"x": image()})["x"]


def server() -> subprocess.Popen[bytes]:
    assert warm._server is not None
    return warm._server._process


def test_each_file_gets_a_process_that_no_file_before_it_has_touched(
    pristine: Bundle, tmp_path: Path
) -> None:
    """Forks of one process, which a crash in one of them does not touch."""
    expected, process = isolated(pristine, "pte"), server()
    data = bytearray(pristine.artifact_path("pte").read_bytes())
    data[data.index(b"XN01") + 128] ^= 0xFF
    (tmp_path / "damaged.pte").write_bytes(data)
    with pytest.raises(FinetDeployError):
        run_isolated(tmp_path / "damaged.pte", "pte", {"x": image()})
    np.testing.assert_array_equal(isolated(pristine, "pte"), expected)
    assert server() is process and process.poll() is None
    mapped = Path(f"/proc/{process.pid}/maps").read_text()
    assert "libtorch_cpu" in mapped and "libexecutorch" not in mapped, "its forks load the runtime themselves"
    assert len(os.listdir(f"/proc/{process.pid}/task")) == 1 or "openblas" in mapped


def test_a_server_that_was_ended_is_started_again(pristine: Bundle) -> None:
    expected, process = isolated(pristine), server()
    process.kill()
    process.wait()
    np.testing.assert_array_equal(isolated(pristine), expected)
    assert server() is not process


def test_a_file_that_takes_too_long_is_named_and_nothing_of_it_goes_on(
    pristine: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    isolated(pristine)
    process = server()
    monkeypatch.setattr("finet_deploy.runtimes.isolated.TIMEOUT_SECONDS", 0.0)
    with pytest.raises(FinetDeployError, match=r"did not finish in 0 s.*model\.ptl"):
        isolated(pristine)
    assert process.poll() is not None
    children = [
        line for line in Path("/proc").glob("[0-9]*/stat") if f") S {process.pid} " in line.read_text()
    ]
    assert children == []
    monkeypatch.undo()
    isolated(pristine)


def test_a_server_that_cannot_start_is_one_readable_error(
    pristine: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm._close()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(FinetDeployError, match=r"no process to run the file in.*model\.ptl"):
        isolated(pristine)


def test_the_server_ends_with_the_process_that_started_it(pristine: Bundle) -> None:
    code = f"""
import os, signal
import numpy
from finet_deploy.runtimes import run_isolated, warm
run_isolated({str(pristine.artifact_path("ptl"))!r}, "ptl", {{"x": numpy.zeros((1, 3, 16, 16), "float32")}})
print(warm._server._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    pid = int(done.stdout)
    deadline = time.monotonic() + 30
    while Path(f"/proc/{pid}").exists() and ") Z " not in Path(f"/proc/{pid}/stat").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_only_known_lines_are_kept_off_stderr(capfd) -> None:
    with _without_known_noise():
        os.write(2, b"[cpuinfo_utils.cpp:71] Reading file /sys/devices/soc0/image_version\n")
        os.write(2, b"[program.cpp:168] Program identifier 'o wo' != expected 'ET12'\n")
        os.write(2, b"[threadpool.cpp:66] Resetting threadpool to 1 threads.\n")
        os.write(2, b"[threadpool.cpp:80] something new\n")
    assert capfd.readouterr().err.splitlines() == [
        "[program.cpp:168] Program identifier 'o wo' != expected 'ET12'",
        "[threadpool.cpp:80] something new",
    ]


@ALL
def test_loading_and_running_writes_nothing(pristine: Bundle, fmt: str) -> None:
    code = f"""
import numpy
from finet_deploy.runtimes import open_session
session = open_session({str(pristine.artifact_path(fmt))!r}, {fmt!r}, threads=2)
session.run(numpy.zeros((1, 3, 16, 16), "float32"))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
