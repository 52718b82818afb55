"""What fuse promises besides the arithmetic: what it refuses, what it leaves alone, what it returns."""

from __future__ import annotations

import copy
import io

import msgspec
import pytest
import torch
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.fuse import FuseReport, check_fusible, count_normalization, fuse
from finet_deploy.nn.fbn import FBNConv2d, FBNLinear
from tests.helpers import randomize_statistics, relative_error


def small() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        FBNConv2d(8, 6, 1, num_groups=4),
        nn.Sequential(nn.Dropout(0.2), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        FBNLinear(6, 5, num_groups=2),
    )
    return randomize_statistics(model, 0).eval()


def state(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.numpy().tobytes() for name, tensor in model.state_dict().items()}


def plain_tensors(model: nn.Module) -> list[str]:
    return [
        name
        for module in model.modules()
        for name, value in vars(module).items()
        if isinstance(value, Tensor)
    ]


def test_the_original_is_untouched():
    model = small()
    before, modules, attributes = state(model), list(model.modules()), [set(vars(m)) for m in model.modules()]
    rng = torch.get_rng_state()
    fused = fuse(model, example_inputs=(torch.zeros(1, 3, 6, 6),))
    assert state(model) == before
    assert all(a is b for a, b in zip(model.modules(), modules))
    assert [set(vars(m)) for m in model.modules()] == attributes
    assert not {id(p) for p in model.parameters()} & {id(p) for p in fused.parameters()}
    assert torch.equal(torch.get_rng_state(), rng)


def test_nothing_that_the_network_does_while_it_is_looked_at_stays():
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls.add_(1)
            self.last = self.bn(self.conv(x.mul_(2)))
            return self.last

    model, x = Counting().eval(), torch.ones(1, 3, 5, 5)
    fused = fuse(model, example_inputs=(x,))
    assert float(model.calls) == float(fused.calls) == 0
    assert not hasattr(model, "last") and not hasattr(fused, "last")
    assert torch.equal(x, torch.ones(1, 3, 5, 5))
    assert count_normalization(fused) == {}


def test_the_fused_model_has_the_same_tree_and_exactly_the_declared_tensors():
    fused = fuse(small())
    assert type(fused) is nn.Sequential
    assert [type(m) for m in fused] == [nn.Conv2d, nn.Identity, nn.ReLU, nn.Conv2d, nn.Sequential, nn.Linear]
    assert list(fused.state_dict()) == ["0.weight", "0.bias", "3.weight", "3.bias", "5.weight", "5.bias"]
    assert not plain_tensors(fused)
    assert not any(module.training for module in fused.modules())


def test_fusing_again_changes_nothing():
    once = fuse(small())
    twice = fuse(once)
    assert state(once) == state(twice)
    assert twice.fuse_report == FuseReport()


def test_fused_weights_reload_strictly_into_a_fresh_fused_model():
    model = small()
    fused, fresh = fuse(model), fuse(randomize_statistics(small(), 7).eval())
    buffer = io.BytesIO()
    torch.save(fused.state_dict(), buffer)
    buffer.seek(0)
    fresh.load_state_dict(torch.load(buffer, weights_only=True), strict=True)
    x = torch.randn(2, 3, 9, 7)
    with torch.no_grad():
        assert torch.equal(fresh(x), fused(x))
        assert relative_error(fused(x), model(x)) < 1e-5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_dtype_requires_grad_and_memory_format_are_kept(dtype):
    model = small().to(dtype).to(memory_format=torch.channels_last)
    model[0].weight.requires_grad_(False)
    fused = fuse(model)
    assert {tensor.dtype for tensor in fused.state_dict().values()} == {dtype}
    assert not fused[0].weight.requires_grad and not fused[0].bias.requires_grad
    assert all(parameter.requires_grad for parameter in fused[3].parameters())
    assert fused[0].weight.is_contiguous(memory_format=torch.channels_last)


def test_fused_models_can_be_copied():
    fused = fuse(small())
    assert copy.deepcopy(fused).fuse_report == fused.fuse_report


@pytest.mark.parametrize("affine", [True, False])
def test_a_layer_that_is_the_whole_model(affine):
    torch.manual_seed(0)
    layer = randomize_statistics(FBNConv2d(4, 3, 3, num_groups=2, affine=affine).double(), 0).eval()
    fused = fuse(layer)
    x = torch.randn(2, 4, 6, 6, dtype=torch.float64)
    assert type(fused) is nn.Conv2d and fused.fuse_report.folded[0].kind == "FBNConv2d"
    with torch.no_grad():
        assert relative_error(fused(x), layer(x)) <= 1e-12
    alone = fuse(nn.BatchNorm2d(4, affine=affine).eval())
    assert "no layer" in alone.fuse_report.kept[0].reason


@pytest.mark.parametrize("norm", [FrozenBatchNorm2d, nn.SyncBatchNorm])
def test_other_batch_normalizations_are_folded(norm):
    torch.manual_seed(0)
    model = randomize_statistics(nn.Sequential(nn.Conv2d(3, 8, 3), norm(8)).double(), 0).eval()
    fused = fuse(model)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    assert fused.fuse_report.folded[0].kind == norm.__name__
    assert count_normalization(model) == {"1": norm.__name__} and count_normalization(fused) == {}
    with torch.no_grad():
        assert relative_error(fused(x), model(x)) <= 1e-12


def test_the_report_says_what_went_where_and_survives_json():
    model = nn.Sequential(small(), nn.Softmax(1), nn.BatchNorm1d(5)).eval()
    report = fuse(model).fuse_report
    assert [(entry.path, entry.kind, entry.into) for entry in report.folded] == [
        ("0.1", "BatchNorm2d", "0.0"),
        ("0.3", "FBNConv2d", "0.3"),
        ("0.5", "FBNLinear", "0.5"),
    ]
    assert [(entry.path, entry.kind) for entry in report.kept] == [("2", "BatchNorm1d")]
    assert report.normalization_left == 1
    decoded = msgspec.json.decode(msgspec.json.encode(report.to_json_object()))
    assert FuseReport.from_json_object(decoded) == report
    with pytest.raises(FinetDeployError, match="not a fuse report"):
        FuseReport.from_json_object({"folded": 3})


def test_an_fbn_layer_counts_as_one_normalization():
    assert count_normalization(small()) == {"1": "BatchNorm2d", "3": "FBNConv2d", "5": "FBNLinear"}


@pytest.mark.parametrize(
    ("path", "named"),
    [("", "the model itself|BatchNorm2d"), ("1", "1"), ("3.bn", "3.bn"), ("4.0", "4.0"), ("2", "2")],
)
def test_train_mode_is_refused_by_name(path, named):
    model = small()
    model.get_submodule(path).training = True
    with pytest.raises(UsageError, match=rf"train mode \[.*({named}).*\]; call model.eval\(\) first"):
        fuse(model)


def test_train_mode_of_a_whole_model_names_its_first_normalization():
    with pytest.raises(UsageError, match=r"BatchNorm2d is in train mode \[1\]"):
        check_fusible(small().train())


def test_missing_running_statistics_are_refused_by_name():
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4, track_running_stats=False)))
    with pytest.raises(UsageError, match=r"no running statistics \[1.0\]"):
        fuse(model.eval())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("0.weight", float("nan")),
        ("1.running_mean", float("inf")),
        ("1.running_var", float("nan")),
        ("1.running_var", -1.0),
        ("3.bn.bias", float("nan")),
        ("5.weight", float("-inf")),
    ],
)
def test_values_that_are_no_weights_are_refused_by_name(name, value):
    model = small()
    with torch.no_grad():
        model.state_dict()[name].view(-1)[0] = value
    with pytest.raises(FinetDeployError, match=rf"\[{name}\]; use a checkpoint"):
        fuse(model)


def test_weights_that_do_not_exist_are_refused():
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    with pytest.raises(UsageError, match=r"meta device.*\[0.weight\]"):
        fuse(model)
    with pytest.raises(UsageError, match=r"not made yet \[0.weight\]"):
        fuse(nn.Sequential(nn.LazyConv2d(4, 1), nn.BatchNorm2d(4)).eval())


def test_torchscript_is_refused():
    with pytest.raises(UsageError, match="TorchScript"):
        fuse(torch.jit.trace(nn.Conv2d(3, 4, 1).eval(), torch.zeros(1, 3, 4, 4)))


def test_inputs_that_are_not_a_tuple_are_refused():
    with pytest.raises(UsageError, match="not a tuple"):
        fuse(small(), example_inputs=torch.zeros(1, 3, 6, 6))


def test_inputs_that_the_model_does_not_take_are_refused():
    with pytest.raises(UsageError, match=r"does not run on example_inputs: RuntimeError"):
        fuse(small(), example_inputs=(torch.zeros(1, 4, 6, 6),))


def test_a_model_that_cannot_be_copied_is_refused_in_one_line():
    class Locked(nn.Sequential):
        def __deepcopy__(self, memo):
            raise TypeError("no copies")

    with pytest.raises(FinetDeployError, match=r"cannot be copied: no copies"):
        fuse(Locked(nn.Conv2d(3, 4, 1)).eval())
