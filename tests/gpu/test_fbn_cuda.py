"""The moment form of FBN on CUDA: the grouped form's function and gradients, at memory that does not grow with G."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from finet_deploy.nn.fbn import FBNConv2d, FBNLinear, set_impl
from finet_deploy.zoo import create_model

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="needs a CUDA device, and this machine has none"
    ),
]


def step(layer: nn.Module, x: torch.Tensor) -> dict[str, torch.Tensor]:
    leaf = x.clone(memory_format=torch.preserve_format).requires_grad_()
    y = layer(leaf)
    y.square().mean().backward()
    assert leaf.grad is not None
    found = {"y": y.detach(), "x": leaf.grad} | dict(layer.named_buffers())
    return found | {name: p.grad for name, p in layer.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("groups", [1, 4, 16])
@pytest.mark.parametrize(("k", "outputs"), [(1, 20), (3, 200), (3, 8)])
def test_moment_form_equals_the_grouped_form(k, outputs, groups, memory_format):
    torch.manual_seed(0)
    layer = FBNConv2d(16, outputs, k, 2, k // 2, num_groups=groups).double().cuda()
    grouped = copy.deepcopy(layer)
    set_impl(grouped, "grouped")
    x = torch.randn(4, 16, 12, 12, dtype=torch.float64, device="cuda").to(memory_format=memory_format)
    found, expected = step(layer, x), step(grouped, x)
    for name, truth in expected.items():
        torch.testing.assert_close(found[name], truth, rtol=1e-9, atol=1e-11, msg=name)
    assert found["y"].is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_error_is_no_larger_than_the_grouped_forms(dtype):
    torch.manual_seed(0)
    layer = FBNConv2d(64, 64, 1, num_groups=4).cuda()
    x = torch.randn(16, 64, 14, 14, device="cuda") + 4
    forms = {impl: copy.deepcopy(layer) for impl in ("moments", "grouped")}
    found = {}
    for impl, form in forms.items():
        set_impl(form, impl)  # type: ignore[arg-type]
        with torch.autocast("cuda", dtype=dtype):
            found[impl] = step(form, x)
        assert found[impl]["y"].dtype == dtype
    set_impl(layer, "grouped")
    truth = step(layer.double(), x.double())
    for name in ("y", "conv.weight", "bn.running_var"):
        error = {
            i: float((f[name].double() - truth[name]).norm() / truth[name].norm()) for i, f in found.items()
        }
        assert error["moments"] <= max(1.15 * error["grouped"], 1e-6), (name, error)


def test_the_linear_layer_and_compiled_training_run_on_cuda():
    torch.manual_seed(0)
    layer = nn.Sequential(FBNLinear(64, 32, num_groups=8), nn.ReLU(inplace=True)).cuda()
    x = torch.randn(128, 64, device="cuda")
    compiled = copy.deepcopy(layer)
    expected, found = step(layer, x), step(torch.compile(compiled, fullgraph=True), x)
    torch.testing.assert_close(found["y"], expected["y"], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found["x"], expected["x"], rtol=1e-3, atol=1e-5)


def test_peak_memory_of_a_training_step_does_not_grow_with_the_groups():
    peaks = {}
    x = torch.randn(32, 3, 64, 64, device="cuda")
    for groups, impl in ((1, "moments"), (20, "moments"), (4, "grouped")):
        channels = {"channels_per_group": 5} if groups == 20 else {"num_groups": groups}
        model = create_model("finet_large", num_classes=10, **channels).cuda()
        set_impl(model, impl)  # type: ignore[arg-type]
        model(x).sum().backward()
        torch.cuda.reset_peak_memory_stats()
        model(x).sum().backward()
        peaks[groups] = torch.cuda.max_memory_allocated()
        del model
    assert peaks[20] <= 1.1 * peaks[1]
    assert peaks[4] > 1.2 * peaks[1]
