"""The command line: light to start, helpful when wrong, readable by machines."""

from __future__ import annotations

import json
import platform
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from finet_deploy.cli import COMMANDS
from tests.cli import FAILED, USAGE, error_line, run_cli

HEAVY = (
    "torch",
    "torchvision",
    "numpy",
    "pandas",
    "scipy",
    "sklearn",
    "onnx",
    "onnxruntime",
    "executorch",
    "rich",
)


def modules_after(code: str) -> set[str]:
    """The top-level modules that a fresh interpreter has loaded after running `code`."""
    program = f"import sys\n{code}\nprint('MODULES', *{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.rpartition("MODULES")[2].split())


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in COMMANDS), ["models"]])
def test_help_and_the_list_of_models_load_nothing_heavy(arguments):
    found = modules_after(f"from finet_deploy.cli import run\nrun({arguments!r})")
    assert "click" in found
    assert found.isdisjoint(HEAVY)


def test_importing_the_package_does_not_import_torch_and_its_functions_do_not_depend_on_the_order():
    assert modules_after("import finet_deploy").isdisjoint(HEAVY)
    code = """
import finet_deploy
assert callable(finet_deploy.fuse)
from finet_deploy.fuse import FuseReport
import finet_deploy.verify, finet_deploy.export
for name in finet_deploy.__all__:
    assert type(getattr(finet_deploy, name)).__name__ == "function", name
    assert name in dir(finet_deploy)
from finet_deploy import fuse, verify, export, create_model, load_checkpoint, save_checkpoint
assert fuse is finet_deploy.fuse and fuse.__module__.startswith("finet_deploy.fuse")
"""
    assert "torch" in modules_after(code)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_examples(capsys, name):
    status, out, _ = run_cli(capsys, name, "--help")
    assert status == 0
    assert "Examples:" in out
    assert f"finet-deploy {name}" in out


def test_version_is_printed(capsys):
    import finet_deploy

    assert run_cli(capsys, "--version")[1].strip() == f"finet-deploy, version {finet_deploy.__version__}"


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["exprot"], "did you mean 'export'"),
        (["fuse", "finet_larg"], "did you mean 'finet_large'"),
        (["fuse"], "Missing argument 'SOURCE'"),
        (["fuse", "finet_small", "--num-groups", "0"], "0 is not in the range"),
        (["fuse", "finet_small", "--num-groups", "2", "--channels-per-group", "20"], "exclude each other"),
        (["fuse", "mobilenetv2_x1_0", "--se"], "has no option se"),
        (["fuse", "finet_small", "--pretrained"], "nobody publishes weights"),
        (["fuse", "finet_small", "--images", "absent"], "no such folder of images"),
        (["fuse", "finet_small", "--model", "finet_small"], "leave --model out"),
        (["export", "finet_small"], "Missing option '-o'"),
        (["export", "finet_small", "--formats", "pte,tflite", "-o", "x"], "tflite"),
        (["export", "finet_small", "--formats", "", "-o", "x"], "pte, onnx, ptl"),
        (["bench"], "bundles or a suite"),
        (["bench", "a", "--suite", "table4"], "bundles or a suite"),
        (["bench", "--suite", "tabel4"], "did you mean 'table4'"),
        (["bench", "--suite", "table4", "--preset", "qick"], "did you mean 'quick'"),
        (["bench", "--suite", "table4", "--threads", "0"], "--threads 0"),
        (["bench", "--suite", "table4", "--threads", "-1"], "--threads -1"),
        (["bench", "--suite", "table4", "--device", "R5 CT"], "no phone can have the name"),
        (["bench", "--suite", "table4", "--device", "host", "--device", "host"], "--device host twice"),
        (["bench", "--suite", "table4", "--device", "host", "--device", "all"], "give `all` alone"),
        (["bench", "--suite", "table4", "--clean"], "are for phones"),
        (
            ["bench", "--suite", "table4", "--device", "R5CT", "--runner", "python"],
            "phones have --runner native",
        ),
        (["bench", "absent"], "no such bundle"),
        (["bench", "x", "--resume", "y"], "--resume goes on"),
        (["report"], "Missing argument"),
        (["report", "x", "--format", "pdf"], "pdf"),
        (["models", "--library", "keras"], "keras"),
    ],
)
def test_a_wrong_call_is_one_line_with_what_to_do_and_exit_2(capsys, tmp_path, monkeypatch, arguments, hint):
    monkeypatch.chdir(tmp_path)
    assert hint in error_line(capsys, USAGE, *arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["fuse", "absent.safetensors"], "no such checkpoint"),
        (["report", "absent"], "no job.json"),
        (["bench", "--resume", "absent"], "no job.json"),
    ],
)
def test_missing_files_are_one_line_and_exit_1(capsys, tmp_path, monkeypatch, arguments, hint):
    monkeypatch.chdir(tmp_path)
    assert hint in error_line(capsys, FAILED, *arguments)
    assert list(tmp_path.iterdir()) == []


def test_an_output_in_use_is_found_before_anything_is_exported(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    line = error_line(capsys, USAGE, "bench", "--suite", "table4", "-o", "run")
    assert "output already exists" in line
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_models_are_described_with_the_options_given(capsys):
    status, out, _ = run_cli(capsys, "models", "finet_small", "--num-groups", "1", "--se", "--json")
    facts = json.loads(out)
    assert status == 0
    assert facts["parameters"] == 2_809_628
    assert facts["macs"] // 10_000 == 4_408  # 44.08 M
    assert facts["model_config"]["num_groups"] == 1
    assert "2,827,056" in run_cli(capsys, "models", "finet_small", "--se")[1]


def test_models_of_a_library_are_listed(capsys):
    assert "torchvision:shufflenet_v2_x1_5" in run_cli(capsys, "models", "--library", "torchvision")[1]


def test_a_network_is_fused_and_stored_in_its_deploy_form(capsys, tmp_path):
    path = tmp_path / "fused.safetensors"
    tiny = ["finet_small", "--cifar", "--num-classes", 5]
    status, out, err = run_cli(capsys, "fuse", *tiny, "-o", path, "--json")
    report = json.loads(out)["report"]
    assert status == 0
    assert len(report["folded"]) > 50
    assert report["kept"] == []
    assert "untrained" in err
    status, out, _ = run_cli(capsys, "fuse", path)
    assert (status, out.strip()) == (0, "finet_small G=4 cifar: 0 folded, 0 left")


def test_quiet_leaves_results_and_nothing_else(capsys):
    status, out, err = run_cli(capsys, "fuse", "finet_small", "--cifar", "-q")
    assert (status, err) == (0, "")
    assert "folded" in out


def test_verify_writes_json_and_junit_and_fails_with_exit_1(capsys, tmp_path):
    json_path, junit_path = tmp_path / "c.json", tmp_path / "c.xml"
    arguments = ["finet_small", "--cifar", "--num-classes", 5, "-o", json_path, "--junit", junit_path]
    status, out, _ = run_cli(capsys, "verify", *arguments)
    assert status == 0, out
    assert json.loads(json_path.read_text())["passed"] is True
    assert "<testsuite" in junit_path.read_text()


def test_a_closed_pipe_ends_quietly():
    """Its reader has gone long before anything is written."""
    run = shlex.quote(str(Path(__file__).parents[2] / "results" / "table4-quick"))
    command = f"{sys.executable} -m finet_deploy report {run} --format csv | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_errors_are_one_line_in_a_real_process_too(tmp_path):
    (tmp_path / "a.pt").write_bytes(b"not a checkpoint")
    command = [sys.executable, "-m", "finet_deploy", "verify", "a.pt", "--model", "finet_small"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == FAILED
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "a.pt" in done.stderr


def test_memory_that_was_freed_is_used_again():
    """Twenty blocks of 32 MiB one after another: the pages of about one are taken from the system."""
    code = (
        "import resource; from finet_deploy.__main__ import keep_memory; keep_memory()\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "before, size = faults(), 32 << 20\n"
        "for _ in range(20): block = None; block = b'x' * size\n"
        "print((faults() - before) * resource.getpagesize() / size)"
    )
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("another C library")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 3
