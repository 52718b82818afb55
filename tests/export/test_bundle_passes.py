"""Deploy passes in bundles: what they did is in the manifest, their evidence in the certificate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, fx, nn

from finet_deploy.errors import UsageError
from finet_deploy.export import CheckFailed, export, read_bundle, verify_bundle
from finet_deploy.passes import PASS_NAMES, PASSES, Pass, run
from tests.cli import USAGE, error_line, run_cli
from tests.passes_networks import Everything, example_inputs

PARTS = ("shuffle", "hard gate", "linear gate", "idle")


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return Everything(PARTS, 20).eval()


@pytest.fixture(scope="module")
def inputs() -> dict[str, Tensor]:
    return example_inputs(7, 7)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, model: nn.Module, inputs: dict[str, Tensor]) -> Path:
    out = tmp_path_factory.mktemp("passes") / "bundle"
    export(model, out, formats=("pte", "onnx", "ptl"), inputs=inputs, name="everything")
    return out


def test_shuffles_and_gates_lower_to_one_delegate(folder, tmp_path, model, inputs) -> None:
    with_passes = read_bundle(folder).artifact("pte")
    assert (with_passes.delegates, with_passes.outside_ops) == (1, {"getitem": 1})
    without = export(model, tmp_path / "plain", formats=("pte",), passes="none", inputs=inputs).artifact(
        "pte"
    )
    assert without.delegates is not None
    assert without.delegates > 1
    assert without.passes == ()
    assert without.core is None


def test_the_manifest_lists_the_passes_of_each_file(folder) -> None:
    bundle = read_bundle(folder)
    pte, onnx, ptl = (bundle.artifact(fmt) for fmt in ("pte", "onnx", "ptl"))
    assert pte.passes is not None
    names = [entry.name for entry in pte.passes]
    assert {"pooling", "gates-as-convolutions", "hard-sigmoid", "channel-shuffle"} <= set(names)
    assert names == [name for name in PASS_NAMES if name in names]
    assert all(entry.changes and entry.max_error <= 1e-12 for entry in pte.passes)
    assert pte.core == "cortex-a76"
    assert not {"pad-channels", "split-pixels"} & {entry.name for entry in onnx.passes or ()}
    assert ptl.passes == ()  # the legacy target stays as the paper measured it
    assert "channel-shuffle" in " ".join(bundle.summary_lines())


def test_the_certificate_holds_the_evidence_of_each_pass(folder) -> None:
    bundle = read_bundle(folder)
    certificate = bundle.certificate()
    for fmt in ("pte", "onnx"):
        for entry in bundle.artifact(fmt).passes or ():
            check = certificate.check(f"pass/{fmt}/{entry.name}")
            assert check.passed
            assert check.name in certificate.expected
            assert check.limits["max_error"] == 1e-12
    assert verify_bundle(bundle).passed


def test_a_pass_that_changes_the_function_leaves_no_bundle(tmp_path, model, inputs, monkeypatch) -> None:
    right = PASSES["pooling"]

    def wrong(module: fx.GraphModule, core: str) -> list[str]:
        changes = right.rewrite(module, core)
        for node in module.graph.nodes:
            if node.target is torch.ops.aten.mean.dim:
                node.target = torch.ops.aten.amax.default
        return changes

    monkeypatch.setitem(run.PASSES, "pooling", Pass("pooling", wrong))
    with pytest.raises(CheckFailed, match="pass/pte/pooling"):
        export(model, tmp_path / "b", formats=("pte",), inputs=inputs)
    assert list(tmp_path.iterdir()) == []


def test_an_unfused_network_is_not_rewritten_unless_asked(tmp_path, model, inputs) -> None:
    plain = export(model, tmp_path / "a", formats=("onnx",), inputs=inputs, fuse_model=False)
    assert plain.artifact("onnx").passes == ()
    asked = export(
        model, tmp_path / "b", formats=("onnx",), inputs=inputs, fuse_model=False, passes="hard-sigmoid"
    )
    assert [entry.name for entry in asked.artifact("onnx").passes or ()] == ["hard-sigmoid"]


def test_raw_pixels_are_another_contract_of_the_same_function(tmp_path, capsys) -> None:
    status, _, error = run_cli(
        capsys, "export", "finet_small", "--cifar", "--num-classes", 10, "--formats", "pte", "--raw-pixels",
        "-o", tmp_path / "b", "-q",
    )  # fmt: skip
    assert status == 0, error
    bundle = read_bundle(tmp_path / "b")
    preprocessing = bundle.manifest.preprocessing
    assert preprocessing is not None
    assert (preprocessing.mean, preprocessing.std) == ((0, 0, 0), (1 / 255, 1 / 255, 1 / 255))
    photo = next(x for name, x in bundle.golden().inputs.items() if name.startswith("photo"))
    assert 0 <= photo.min() < photo.max() <= 255.01
    assert photo.max() > 50
    pte = bundle.artifact("pte")
    assert "fold-standardization" in [entry.name for entry in pte.passes or ()]
    assert pte.delegates == 1


def test_a_wrong_name_is_refused_before_anything_is_done(tmp_path, model, inputs) -> None:
    with pytest.raises(UsageError, match="unknown pass 'poling'"):
        export(model, tmp_path / "b", inputs=inputs, passes="poling")
    with pytest.raises(UsageError, match="unknown core 'm1'"):
        export(model, tmp_path / "b", inputs=inputs, core="m1")
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_names_what_it_does_not_know(capsys, tmp_path) -> None:
    out = ["-o", tmp_path / "b", "-q"]
    assert "pad-channels" in error_line(
        capsys, USAGE, "export", "finet_small", "--passes", "pad-channel", *out
    )
    assert "unknown core" in error_line(capsys, USAGE, "export", "finet_small", "--core", "m1", *out)
    assert not (tmp_path / "b").exists()


def test_the_manifest_is_plain_json(folder) -> None:
    artifact = json.loads((folder / "manifest.json").read_text())["artifacts"]["pte"]
    assert sorted(artifact["passes"][0]) == ["changes", "max_error", "name"]
