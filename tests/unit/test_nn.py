"""The layers and networks are the paper's: its parameter counts, its formula, its limits on G."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from finet_deploy.nn import FBNConv2d, FBNLinear, Finet, Grouping
from finet_deploy.nn.fbn import groups_by_channels
from finet_deploy.zoo import create_model

# Table 2, with ImageNet's head; the paper prints millions, truncated to three decimals.
PARAMETER_COUNTS = {
    ("finet_small", 1, False): (2_388_268, "2.388"),
    ("finet_small", 2, False): (2_392_588, "2.392"),
    ("finet_small", 4, False): (2_402_480, "2.402"),
    ("finet_small", 1, True): (2_809_628, "2.809"),
    ("finet_small", 2, True): (2_813_948, "2.813"),
    ("finet_small", 4, True): (2_827_056, "2.827"),
    ("finet_large", 1, False): (4_434_368, "4.434"),
    ("finet_large", 2, False): (4_448_768, "4.448"),
    ("finet_large", 4, False): (4_477_568, "4.477"),
    ("finet_large", 1, True): (5_812_768, "5.812"),
    ("finet_large", 2, True): (5_827_168, "5.827"),
    ("finet_large", 4, True): (5_855_968, "5.855"),
}


@pytest.mark.parametrize(("name", "num_groups", "se"), PARAMETER_COUNTS)
def test_parameter_counts_are_exactly_those_of_the_papers_table_2(name, num_groups, se):
    model = create_model(name, num_groups=num_groups, se=se)
    exact, printed = PARAMETER_COUNTS[name, num_groups, se]
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == exact
    assert f"{count // 1000 / 1000:.3f}" == printed


@pytest.mark.parametrize("num_groups", [1, 2, 4, 8])
@pytest.mark.parametrize("training", [True, False])
def test_fbn_is_the_sum_of_separately_normalized_partial_sums(num_groups, training):
    torch.manual_seed(0)
    layer = FBNConv2d(8, 5, 3, padding=1, num_groups=num_groups).double().train(training)
    nn.init.normal_(layer.bn.weight)
    nn.init.normal_(layer.bn.bias)
    nn.init.normal_(layer.bn.running_mean)
    nn.init.uniform_(layer.bn.running_var, 0.1, 2.0)
    x = torch.randn(4, 8, 7, 6, dtype=torch.float64)
    mean, var = layer.bn.running_mean.clone(), layer.bn.running_var.clone()
    expected = torch.zeros(4, 5, 7, 6, dtype=torch.float64)
    for g in range(num_groups):
        c = 8 // num_groups
        rows = slice(g * 5, (g + 1) * 5)
        u = nn.functional.conv2d(x[:, g * c : (g + 1) * c], layer.conv.weight[rows], padding=1)
        m = u.mean((0, 2, 3)) if training else mean[rows]
        v = u.var((0, 2, 3), unbiased=False) if training else var[rows]
        scaled = (u - m.view(-1, 1, 1)) / (v.view(-1, 1, 1) + layer.bn.eps).sqrt()
        expected += scaled * layer.bn.weight[rows].view(-1, 1, 1) + layer.bn.bias[rows].view(-1, 1, 1)
    torch.testing.assert_close(layer(x), expected, rtol=1e-12, atol=1e-12)


def test_one_group_is_convolution_and_batch_norm():
    torch.manual_seed(0)
    layer = FBNConv2d(6, 4, 1, num_groups=1, impl="grouped")
    plain = nn.Sequential(layer.conv, nn.BatchNorm2d(4))
    x = torch.randn(3, 6, 5, 5)
    torch.testing.assert_close(layer(x), plain(x), rtol=0, atol=0)


def test_fbn_linear_equals_the_1x1_convolution():
    torch.manual_seed(0)
    linear, conv = FBNLinear(12, 5, num_groups=3, bias=True), FBNConv2d(12, 5, 1, num_groups=3, bias=True)
    conv.conv.weight.data.copy_(linear.weight[:, :, None, None])
    conv.conv.bias.data.copy_(linear.bias)
    x = torch.randn(8, 12)
    torch.testing.assert_close(linear(x), conv(x[:, :, None, None])[:, :, 0, 0])


@pytest.mark.parametrize("layer", [FBNConv2d, FBNLinear])
@pytest.mark.parametrize(("inputs", "groups"), [(100, 8), (4, 8), (10, 3), (10, 0)])
def test_groups_that_do_not_divide_the_inputs_are_refused_with_those_that_do(layer, inputs, groups):
    arguments = (inputs, 8, 1) if layer is FBNConv2d else (inputs, 8)
    with pytest.raises(
        ValueError, match=rf"num_groups={groups} .*{inputs} input.*use one of \[1, .*{inputs}\]"
    ):
        layer(*arguments, num_groups=groups)


@pytest.mark.parametrize(
    ("channels", "per_group", "groups"),
    [(24, 20, 1), (100, 20, 5), (100, 50, 2), (100, 100, 1), (400, 50, 8), (8, 9, 1)],
)
def test_channels_per_group_give_the_groups_of_table_6(channels, per_group, groups):
    assert groups_by_channels(channels, per_group) == groups
    assert FBNConv2d(channels, 4, 1, channels_per_group=per_group).num_groups == groups


def test_groups_and_channels_per_group_exclude_each_other():
    with pytest.raises(ValueError, match="exactly one"):
        FBNConv2d(8, 8, 1, num_groups=2, channels_per_group=4)


@pytest.mark.parametrize(
    ("size", "num_groups", "widths"),
    [("small", 4, (24, 32, 60, 120)), ("large", 8, (24, 104, 200, 400)), ("small", 16, (32, 32, 64, 128))],
)
def test_stage_widths_are_rounded_up_to_a_multiple_of_the_groups(size, num_groups, widths):
    net = Finet(size, grouping=Grouping(num_groups))
    found = [
        net.conv1.out_channels,
        *(stage[0].conv1.out_channels for stage in (net.stage2, net.stage3, net.stage4)),
    ]
    assert tuple(found) == widths


@pytest.mark.parametrize("name", ["finet_small", "finet_large", "resnet18_fbn", "resnet50_fbn"])
def test_cifar_form_keeps_resolution_in_the_stem(name):
    model = create_model(name, cifar=True, num_classes=10).eval()
    shapes = []
    first = model.conv1 if name.startswith("finet") else model.stem
    first.register_forward_hook(lambda module, args, output: shapes.append(output.shape[-1]))
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)
    assert shapes == [32]
    assert isinstance(model.pool, nn.Identity)


def test_no_affine_leaves_no_gamma_and_beta():
    model = create_model("finet_small", se=True, affine=False)
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert norms
    assert all(norm.weight is None for norm in norms)
