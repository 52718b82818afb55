"""Networks into all three formats and back through their own runtimes, held against the float64 truth."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

from finet_deploy.errors import FinetDeployError
from finet_deploy.export import export, verify_bundle
from finet_deploy.export.executorch import require_one_delegate, to_pte
from finet_deploy.export.exported import program_op_counts, trace_program
from finet_deploy.export.onnx import to_onnx
from finet_deploy.export.operators import count_normalization_ops
from finet_deploy.export.torch_mobile import to_ptl
from finet_deploy.fuse import fuse
from finet_deploy.images import Preprocessing, default_images
from finet_deploy.runtimes import run_isolated
from finet_deploy.untrained import prepare_untrained
from finet_deploy.zoo import create_model
from tests.export.conftest import TinyNet, noise_inputs, well_conditioned

LIMIT = 1e-5


def error(found: np.ndarray, truth: Tensor) -> float:
    difference = torch.from_numpy(found).double() - truth
    return float(difference.norm() / truth.norm())


def exact_outputs(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """The float64 truth, not by the code under test."""
    exact = copy.deepcopy(model).double()
    with torch.no_grad():
        return {name: exact(x.double()) for name, x in inputs.items()}


def test_finet_keeps_its_function_in_every_format_and_lowers_to_one_delegate(tmp_path: Path) -> None:
    """One network; what is found here about all of them, with and without SE, test_networks.py asks certificates."""
    preprocessing = Preprocessing(resize=73, crop=64)
    pictures = default_images(24, preprocessing)
    model = prepare_untrained(create_model("finet_small", se=True, seed=0), pictures)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inputs = {**noise_inputs(64), "photo_0": pictures[:1]}
    steps: list[str] = []
    bundle = export(model, tmp_path / "finet", inputs=inputs, progress=steps.append)

    truth = exact_outputs(model, inputs)
    arrays = {name: x.numpy() for name, x in inputs.items()}
    for fmt in ("pte", "onnx", "ptl"):
        outputs = run_isolated(bundle.artifact_path(fmt), fmt, arrays)
        for name, y in outputs.items():
            assert error(y, truth[name]) <= LIMIT, (fmt, name)
        assert bundle.artifact(fmt).normalization_ops == 0
    golden = bundle.golden().outputs
    assert all(error(golden[name], truth[name]) <= 1e-12 for name in truth)

    pte = bundle.artifact("pte")
    assert (pte.delegates, pte.nodes_outside, pte.outside_ops) == (1, 1, {"getitem": 1})
    assert pte.delegated_share == 1.0
    assert bundle.certificate().passed
    assert verify_bundle(bundle).passed
    assert len(steps) == 2 * 3 + 4
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_finet_that_breaks_its_graph_is_refused_with_the_operators_named(tmp_path: Path) -> None:
    """Unfused FBN sums over groups, which XNNPACK does not take; called fused, the export must fail."""
    model = well_conditioned(TinyNet())
    exported = to_pte(trace_program(model, torch.randn(1, 3, 16, 16)))
    assert exported.delegates == 2
    assert any("2 XNNPACK delegates, 1 operators outside" in notice for notice in exported.notices)
    with pytest.raises(FinetDeployError, match=r"2 XNNPACK delegates .*aten_sum_dim_int_list x 1"):
        require_one_delegate(exported)


class Branches(nn.Module):
    """Two conv+BN that read one tensor, and a linear head with a batch norm behind it.

    Exporters have given both branches one bias, dropped the head's beta, and failed on a head without gamma.
    """

    def __init__(self, bias: bool, affine: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.left, self.bn_left = nn.Conv2d(8, 8, 3, padding=1, bias=bias), nn.BatchNorm2d(8)
        self.right, self.bn_right = nn.Conv2d(8, 8, 1, bias=bias), nn.BatchNorm2d(8)
        self.fc, self.bn_fc = nn.Linear(8, 6, bias=bias), nn.BatchNorm1d(6, affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.bn_left(self.left(x)) + self.bn_right(self.right(x)))
        return self.bn_fc(self.fc(x.mean((2, 3))))


@pytest.mark.parametrize("fuse_model", [True, False])
@pytest.mark.parametrize(("bias", "affine"), [(True, False), (False, True)])
def test_what_exporters_got_wrong_before_comes_out_right(
    tmp_path: Path, bias: bool, affine: bool, fuse_model: bool
) -> None:
    """The exporters fold batch norms themselves when we do not; both ways must give the same function."""
    torch.manual_seed(0)
    model = well_conditioned(Branches(bias, affine))
    inputs = noise_inputs(16)
    bundle = export(model, tmp_path / "b", inputs=inputs, fuse_model=fuse_model)
    arrays = {name: x.numpy() for name, x in inputs.items()}
    truth = exact_outputs(model, inputs)
    for fmt in bundle.formats:
        outputs = run_isolated(bundle.artifact_path(fmt), fmt, arrays)
        assert max(error(y, truth[name]) for name, y in outputs.items()) <= LIMIT, fmt
    assert bundle.manifest.fused is fuse_model
    assert bundle.manifest.program_normalization_ops == (0 if fuse_model else 3)
    assert len(bundle.manifest.fuse_report["folded"]) == (3 if fuse_model else 0)
    assert len(bundle.manifest.fuse_report["kept"]) == (0 if fuse_model else 3)


def test_one_program_serves_both_exporters_and_neither_changes_it(tiny_model: nn.Module) -> None:
    x = torch.randn(1, 3, 16, 16)
    fused = fuse(tiny_model)
    shared = trace_program(fused, x)
    to_pte(shared)
    after = to_onnx(shared)
    fresh = to_onnx(trace_program(fused, x))
    assert after.data == fresh.data
    assert to_pte(shared).data == to_pte(trace_program(fused, x)).data


def test_normalizations_that_no_exporter_can_fold_are_counted_in_the_file() -> None:
    class Norms(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bn, self.conv = nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3, padding=1)
            self.group, self.layer = nn.GroupNorm(2, 4), nn.LayerNorm(16)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(self.group(torch.relu(self.conv(self.bn(x))))).mean((2, 3))

    model, x = well_conditioned(Norms()), torch.randn(1, 3, 16, 16)
    program = trace_program(model, x)
    assert count_normalization_ops(program_op_counts(program)) == 3
    assert to_onnx(program).normalization_ops == 3
    assert to_ptl(model, x).normalization_ops == 3
    assert to_pte(program).normalization_ops == 3


def test_the_onnx_file_is_alone_checked_and_says_nothing_about_this_machine(pristine) -> None:
    path = pristine.artifact_path("onnx")
    assert not list(pristine.path.glob("*.data"))
    model = onnx.load(path, load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert not any(tensor.external_data for tensor in model.graph.initializer)
    assert [item.name for item in model.graph.input] == ["input"]
    home = str(Path(torch.__file__).parents[1]).encode()
    for fmt in ("onnx", "pte"):
        assert home not in pristine.artifact_path(fmt).read_bytes()


def test_the_ptl_notice_is_ours_once_and_no_warning_of_torch_appears(tiny_model: nn.Module, recwarn) -> None:
    exported = to_ptl(tiny_model, torch.randn(1, 3, 16, 16))
    assert len(recwarn) == 0
    [notice] = exported.notices
    assert notice.startswith("legacy target: PyTorch Mobile's lite interpreter, without XNNPACK prepacking")
    assert f"bytecode version {exported.bytecode_version}" in notice
    assert "aten::_convolution" in exported.operators


def test_optimize_for_mobile_is_never_called(monkeypatch, tiny_model: nn.Module) -> None:
    from torch.utils import mobile_optimizer

    def fail(*_args, **_kwargs):
        raise AssertionError("optimize_for_mobile was called")

    monkeypatch.setattr(mobile_optimizer, "optimize_for_mobile", fail)
    monkeypatch.setattr(torch._C, "_jit_pass_optimize_for_mobile", fail, raising=False)
    to_ptl(tiny_model, torch.randn(1, 3, 16, 16))


def test_exporting_prints_nothing(tiny_model: nn.Module, capfd) -> None:
    x = torch.randn(1, 3, 16, 16)
    program = trace_program(fuse(tiny_model), x)
    to_pte(program), to_onnx(program), to_ptl(tiny_model, x)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert captured.err == ""


def test_an_unexportable_network_is_one_readable_error(tmp_path: Path) -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x).mean((2, 3))
            return y if y.sum() > 0 else -y

    with pytest.raises(FinetDeployError, match=r"cannot be traced for the deploy passes.*--passes none"):
        export(Branching().eval(), tmp_path / "b", inputs=noise_inputs(16))
    with pytest.raises(FinetDeployError, match=r"cannot export to \.pte"):
        export(Branching().eval(), tmp_path / "b", inputs=noise_inputs(16), passes="none")
    assert not list(tmp_path.iterdir())
