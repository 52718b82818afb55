"""The command line on real bundles: the main job whole, bad bundles refused, Ctrl-C in every phase."""

from __future__ import annotations

import json
import signal
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import torch

from finet_deploy.checkpoint import save_checkpoint
from finet_deploy.zoo import create_model
from tests.cli import FAILED, INTERRUPTED, USAGE, error_line, interrupt_here_when, interrupt_when, run_cli

TINY = ["squeezenet", "--norm", "bn", "--cifar", "--num-classes", "10"]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle written by the command line, and what it printed beside it."""
    from finet_deploy.cli import run

    path = tmp_path_factory.mktemp("cli") / "tiny"
    assert run(["export", *TINY, "-o", str(path), "-q"]) == 0
    return path


def test_a_bundle_is_exported_and_verified_again_from_its_folder(exported, capsys, tmp_path):
    status, out, _ = run_cli(
        capsys, "verify", exported, "--junit", tmp_path / "c.xml", "-o", tmp_path / "c.json"
    )
    assert status == 0
    assert "passed" in out.splitlines()[0]
    assert all(f"artifact/{fmt}" in out for fmt in ("pte", "onnx", "ptl"))
    suite = ElementTree.parse(tmp_path / "c.xml").getroot()
    assert len(list(suite.iter("testcase"))) >= 3
    assert not list(suite.iter("failure"))
    assert json.loads((tmp_path / "c.json").read_text())["passed"] is True


def test_an_existing_bundle_needs_overwrite(exported, capsys):
    before = (exported / "manifest.json").read_bytes()
    assert "--overwrite" in error_line(capsys, USAGE, "export", *TINY, "-o", exported, "-q")
    assert (exported / "manifest.json").read_bytes() == before


def test_json_is_one_document_and_nothing_else(capsys, tmp_path):
    status, out, _ = run_cli(
        capsys, "export", *TINY, "--formats", "onnx", "-o", tmp_path / "b", "--json", "-q"
    )
    manifest = json.loads(out)
    assert status == 0
    assert list(manifest["artifacts"]) == ["onnx"]
    assert manifest["source"]["trained"] is False
    assert sorted(p.name for p in (tmp_path / "b").iterdir()) == [
        "certificate.json", "certificate.xml", "golden.safetensors", "manifest.json", "model.onnx", "operators.json",
    ]  # fmt: skip


def test_a_checkpoint_goes_from_file_to_bundle_with_its_own_hash(capsys, tmp_path):
    model = create_model("squeezenet", norm="bn", cifar=True, num_classes=10, seed=3)
    save_checkpoint(model, tmp_path / "mine.safetensors")
    status, out, _ = run_cli(
        capsys,
        "export",
        tmp_path / "mine.safetensors",
        "--formats",
        "onnx",
        "-o",
        tmp_path / "b",
        "--json",
        "-q",
    )
    source = json.loads(out)["source"]
    assert status == 0
    assert (source["kind"], source["path"]) == ("checkpoint", "mine.safetensors")
    assert len(source["sha256"]) == 64


def test_a_bundle_takes_no_model_options(exported, capsys):
    assert "leave the options out" in error_line(capsys, USAGE, "verify", exported, "--se")


@pytest.mark.parametrize("command", ["verify", "bench"])
def test_a_flipped_byte_and_a_missing_file_are_named_in_one_line(exported, capsys, tmp_path, command):
    import shutil

    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    data = bytearray((copy / "model.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (copy / "model.onnx").write_bytes(data)
    assert "model.onnx" in error_line(capsys, FAILED, command, copy)
    (copy / "model.onnx").unlink()
    assert "model.onnx" in error_line(capsys, FAILED, command, copy)
    manifest = json.loads((exported / "manifest.json").read_text())
    manifest["artifacts"]["onnx"]["file"] = "../../etc/passwd"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    assert "do not trust" in error_line(capsys, FAILED, command, copy)


def test_nan_weights_are_named_in_one_line(capsys, tmp_path):
    state = create_model("finet_small", cifar=True, num_classes=10, seed=0).state_dict()
    state["stage2.0.conv1.conv.weight"][0, 0] = float("nan")
    torch.save(state, tmp_path / "nan.pt")
    line = error_line(
        capsys,
        FAILED,
        "export",
        tmp_path / "nan.pt",
        "--model",
        "finet_small",
        "--cifar",
        "--num-classes",
        10,
        "-o",
        tmp_path / "b",
        "-q",
    )
    assert "stage2.0.conv1.conv.weight holds NaN" in line
    assert not (tmp_path / "b").exists()


def test_an_output_below_a_file_is_one_line(capsys, tmp_path):
    (tmp_path / "file").write_text("mine")
    line = error_line(capsys, FAILED, "export", *TINY, "-o", tmp_path / "file" / "b", "-q")
    assert "file" in line
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("marker", "formats", "real"),
    [
        ("untrained", "pte,onnx,ptl", False),
        ("fuse", "pte,onnx,ptl", False),
        ("verify", "pte,onnx,ptl", False),
        ("export pte", "pte,onnx,ptl", True),  # libraries of others are busy there
        ("export onnx", "onnx,ptl", False),  # without what comes before and takes longest
        ("run onnx", "onnx,ptl", True),  # a process of its own runs the file
        ("run ptl", "onnx,ptl", False),
    ],
)
def test_ctrl_c_in_any_phase_of_an_export_exits_130_and_leaves_nothing(
    monkeypatch, tmp_path, marker, formats, real
):
    arguments = ["export", *TINY, "--formats", formats, "-o", "bundles/b"]
    if real:
        status, err = interrupt_when(arguments, marker, tmp_path, warm="exporting")
    else:
        status, err = interrupt_here_when(monkeypatch, arguments, marker, tmp_path)
    assert status == INTERRUPTED, err
    assert "Traceback" not in err
    assert err.splitlines()[-1].startswith("finet-deploy: interrupted")
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


def test_sigterm_exits_143_and_leaves_nothing(tmp_path):
    arguments = ["export", *TINY, "-o", "b"]
    status, err = interrupt_when(arguments, "verify", tmp_path, sign=signal.SIGTERM, warm="exporting")
    assert (status, "Traceback" in err) == (143, False)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_in_a_bench_keeps_what_was_measured_and_resumes(exported, capsys, tmp_path):
    arguments = ["bench", exported, "--preset", "demo", "--runtimes", "onnxruntime", "-o", "run"]
    status, err = interrupt_when(arguments, "[2/6]", tmp_path)
    assert status == INTERRUPTED, err
    assert "Traceback" not in err
    done = len(
        [line for line in (tmp_path / "run/records.jsonl").read_text().splitlines() if '"end"' in line]
    )
    assert 2 <= done < 6
    status, out, _ = run_cli(capsys, "bench", "--resume", tmp_path / "run", "--json", "-q")
    result = json.loads(out)
    assert status == 0
    assert (result["missing_visits"], result["resumed"]) == (0, 1)
    assert run_cli(capsys, "report", tmp_path / "run")[1].count("images/s") == 1


def test_an_unfinished_run_folder_is_not_reported_as_if_it_were(capsys, tmp_path):
    (tmp_path / "job.json").write_text("{")
    assert "not a benchmark job" in error_line(capsys, FAILED, "report", tmp_path)
