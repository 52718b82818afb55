"""The folding identities, over configurations: fused against unfused, in fp64 to 1e-12, and in fp32."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from finet_deploy.fuse import count_normalization, fuse
from finet_deploy.nn.fbn import FBNConv2d, FBNLinear
from tests.helpers import relative_error

settings.register_profile("fuse", max_examples=40, deadline=None, derandomize=True)
configurations = settings.get_profile("fuse")

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


@st.composite
def statistics(draw):
    """(seed, decades of variance, size of the means): from harmless to extreme."""
    return (
        draw(st.integers(0, 2**16)),
        draw(st.sampled_from([0, 2, 8, 16])),
        draw(st.sampled_from([0.0, 1.0, 1e4])),
    )


def set_statistics(norm: nn.Module, seed: int, decades: float, size: float) -> None:
    generator = torch.Generator().manual_seed(seed)

    def random(like: Tensor) -> Tensor:
        return torch.rand(like.shape, generator=generator, dtype=torch.float64) * 2 - 1

    with torch.no_grad():
        norm.running_mean.copy_(size * random(norm.running_mean))
        norm.running_var.copy_(10 ** (decades / 2 * random(norm.running_var)))
        if norm.affine:
            norm.weight.copy_(3 * random(norm.weight))  # both signs, and near zero
            norm.bias.copy_(2 * random(norm.bias))


def check(model: nn.Module, x: Tensor, *, left: int = 0) -> None:
    """fp64: the algebra. fp32: the fused network is no worse than the unfused one, or good to 1e-6."""
    model.double().eval()
    x = x.double()
    fused = fuse(model, example_inputs=(x,))
    assert len(count_normalization(fused)) == left
    with torch.no_grad():
        truth = model(x)
        assert relative_error(fused(x), truth) <= 1e-12
        model.float()
        single = fuse(model, example_inputs=(x.float(),))
        own = relative_error(model(x.float()).double(), model.double()(x.float().double()))
        found = relative_error(single(x.float()).double(), model(x.float().double()))
    assert {p.dtype for p in single.parameters()} == {torch.float32}
    assert found <= max(1e-6, 8 * own)


@configurations
@given(
    axes=st.sampled_from([1, 2, 2, 3]),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    padding=st.integers(0, 2),
    padding_mode=st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
    groups=st.sampled_from([1, 2, 4, 8]),
    bias=st.booleans(),
    affine=st.booleans(),
    eps=st.sampled_from([1e-12, 1e-5, 1e-3, 0.5]),
    stats=statistics(),
)
def test_convolution_then_batch_norm(
    axes, kernel, stride, dilation, padding, padding_mode, groups, bias, affine, eps, stats
):
    torch.manual_seed(stats[0])
    if axes == 3:
        kernel = min(kernel, 3)
    conv = CONV[axes](
        8, 8, kernel, stride, padding, dilation, groups=groups, bias=bias, padding_mode=padding_mode
    )
    norm = NORM[axes](8, eps=eps, affine=affine)
    set_statistics(norm, *stats)
    side = dilation * (kernel - 1) + 4
    check(nn.Sequential(conv, norm, nn.ReLU()), torch.randn(2, 8, *[side] * (axes - 1), side + 1))


@configurations
@given(
    axes=st.sampled_from([1, 2, 2, 3]),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    dilation=st.integers(1, 2),
    padding=st.integers(0, 1),
    groups=st.sampled_from([1, 2, 4]),
    bias=st.booleans(),
    affine=st.booleans(),
    stats=statistics(),
)
def test_transposed_convolution_then_batch_norm(
    axes, kernel, stride, dilation, padding, groups, bias, affine, stats
):
    torch.manual_seed(stats[0])
    if axes == 3:
        kernel = min(kernel, 2)
    conv = TRANSPOSED[axes](
        4, 8, kernel, stride, padding, groups=groups, bias=bias, dilation=dilation, output_padding=0
    )
    norm = NORM[axes](8, affine=affine)
    set_statistics(norm, *stats)
    check(nn.Sequential(conv, norm), torch.randn(2, 4, *[4] * (axes - 1), 5))


@configurations
@given(
    bias=st.booleans(),
    affine=st.booleans(),
    eps=st.sampled_from([1e-12, 1e-5, 0.5]),
    forward=st.booleans(),
    stats=statistics(),
)
def test_linear_with_batch_norm_before_or_after(bias, affine, eps, forward, stats):
    torch.manual_seed(stats[0])
    norm = nn.BatchNorm1d(12, eps=eps, affine=affine)
    set_statistics(norm, *stats)
    layers = [norm, nn.Linear(12, 7, bias=bias)] if forward else [nn.Linear(7, 12, bias=bias), norm]
    check(nn.Sequential(*layers), torch.randn(3, 12 if forward else 7))


@configurations
@given(
    kernel=st.integers(1, 4),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    groups=st.sampled_from([1, 2, 8]),
    bias=st.booleans(),
    affine=st.booleans(),
    stats=statistics(),
)
def test_batch_norm_before_an_unpadded_convolution(kernel, stride, dilation, groups, bias, affine, stats):
    torch.manual_seed(stats[0])
    norm = nn.BatchNorm2d(8, affine=affine)
    set_statistics(norm, *stats)
    conv = nn.Conv2d(8, 16, kernel, stride, 0, dilation, groups=groups, bias=bias)
    check(nn.Sequential(nn.ReLU(), norm, conv), torch.randn(2, 8, 9, 8))


@configurations
@given(
    num_groups=st.sampled_from([1, 2, 4, 8, 16]),
    kernel=st.integers(1, 5),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    padding=st.sampled_from([0, 1, 2, "same"]),
    padding_mode=st.sampled_from(["zeros", "reflect", "replicate", "circular"]),
    bias=st.booleans(),
    affine=st.booleans(),
    eps=st.sampled_from([1e-12, 1e-5, 0.5]),
    stats=statistics(),
)
def test_fbn_convolution(
    num_groups, kernel, stride, dilation, padding, padding_mode, bias, affine, eps, stats
):
    torch.manual_seed(stats[0])
    layer = FBNConv2d(
        16,
        5,
        kernel,
        1 if padding == "same" else stride,
        padding,
        dilation,
        num_groups=num_groups,
        bias=bias,
        affine=affine,
        eps=eps,
        padding_mode=padding_mode,
    )
    set_statistics(layer.bn, *stats)
    side = dilation * (kernel - 1) + 4
    check(nn.Sequential(layer, nn.ReLU()), torch.randn(2, 16, side, side + 1))


@configurations
@given(
    num_groups=st.sampled_from([1, 2, 3, 12]), bias=st.booleans(), affine=st.booleans(), stats=statistics()
)
def test_fbn_linear(num_groups, bias, affine, stats):
    torch.manual_seed(stats[0])
    layer = FBNLinear(12, 5, num_groups=num_groups, bias=bias, affine=affine)
    set_statistics(layer.bn, *stats)
    check(nn.Sequential(layer), torch.randn(3, 12))


def test_fbn_with_one_group_folds_to_exactly_the_convolution_that_conv_and_bn_fold_to():
    torch.manual_seed(0)
    layer = FBNConv2d(6, 9, 3, padding=1, num_groups=1, bias=True)
    set_statistics(layer.bn, 0, 4, 1.0)
    plain = nn.Sequential(nn.Conv2d(6, 9, 3, padding=1), nn.BatchNorm2d(9))
    plain[0].load_state_dict(layer.conv.state_dict())
    plain[1].load_state_dict(layer.bn.state_dict())
    of_fbn, of_plain = fuse(nn.Sequential(layer).eval()), fuse(plain.eval())
    assert torch.equal(of_fbn[0].weight, of_plain[0].weight)
    assert torch.equal(of_fbn[0].bias, of_plain[0].bias)


def test_the_fold_is_rounded_once_however_many_normalizations_end_in_one_layer():
    torch.manual_seed(0)
    norms = [nn.BatchNorm2d(8) for _ in range(3)]
    for seed, norm in enumerate(norms):
        set_statistics(norm, seed, 4, 1.0)
    model = nn.Sequential(nn.ReLU(), norms[0], nn.Conv2d(8, 8, 1), norms[1], norms[2]).eval()
    fused = fuse(model)
    exact = fuse(model.double())
    assert len(fused.fuse_report.folded) == 3
    assert torch.equal(fused[2].weight, exact[2].weight.float())
    assert torch.equal(fused[2].bias, exact[2].bias.float())
