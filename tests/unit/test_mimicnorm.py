"""MimicNorm's parts: the projection, its differentiable form, and the initial values of the reference table."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from finet_deploy.errors import UsageError
from finet_deploy.nn.mimicnorm import (
    LearnableScale,
    LearnableShift,
    MimicNorm,
    bake_weight_mean,
    baked_state_dict,
    has_weight_mean,
    largest_channel_mean,
    project_weight_mean_,
    reparametrize_weight_mean,
    weight_mean_layers,
)
from finet_deploy.zoo import create_model

RESNETS = ["resnet18", "resnet50"]
NETS = ["vgg11", "vgg16", *RESNETS, "squeezenet", "shufflenetv2"]


def mimic(name, **options):
    """A 32 px network, unless said otherwise."""
    return create_model(name, norm="mimic", num_classes=10, seed=0, **{"cifar": True, **options})


def small_net(*, variant="code", cifar=True, weight_mean=True):
    """RGB stem, 1x1 with few inputs, depthwise, grouped and wide convolutions: each rule takes other ones."""
    net = nn.Sequential()
    net.stem = nn.Conv2d(3, 16, 3)  # fan-in 27
    net.narrow = nn.Conv2d(16, 24, 1)  # 16
    net.depthwise = nn.Conv2d(24, 24, 3, groups=24)  # 9
    net.grouped = nn.Conv2d(24, 32, 3, groups=4)  # 54
    net.wide = nn.Conv2d(32, 8, 3)  # 288
    net.head = nn.Linear(8, 5)
    MimicNorm(variant, cifar, weight_mean).initialize(net)
    return net


RULES = {
    "fan-in": {"grouped", "wide"},
    "groups": {"stem", "narrow", "wide"},
    "paper": {"stem", "narrow", "grouped", "wide"},
}


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_names_exactly_its_layers(rule):
    assert weight_mean_layers(small_net(), rule).keys() == RULES[rule]
    with pytest.raises(UsageError, match="fan-in, groups, paper"):
        weight_mean_layers(small_net(), "all")


@pytest.mark.parametrize(
    ("options", "rule"),
    [({}, "fan-in"), ({"cifar": False}, "groups"), ({"variant": "paper"}, "paper")],
)
def test_the_projection_centres_exactly_the_rules_layers(options, rule):
    net = small_net(**options)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 + 0.1 * torch.rand_like(parameter))
    before = copy.deepcopy(net.state_dict())
    project_weight_mean_(net)
    for name, layer in net.named_children():
        means = layer.weight.detach().double().flatten(1).mean(1).abs()
        if name in RULES[rule]:
            assert means.max() < 1e-7
            centred = before[f"{name}.weight"] - before[f"{name}.weight"].mean((1, 2, 3), keepdim=True)
            torch.testing.assert_close(layer.weight.detach(), centred, rtol=1e-5, atol=1e-7)
        else:
            assert torch.equal(layer.weight, before[f"{name}.weight"])
        assert torch.equal(layer.bias, before[f"{name}.bias"])
    assert 0 < largest_channel_mean(net) < 1e-6


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**16),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    offset=st.sampled_from([0.0, 1e-8, 1e-3, 1.0, 1e4]),
    channels=st.integers(1, 300),
)
def test_a_second_projection_changes_no_bit(seed, dtype, offset, channels):
    net = nn.Sequential(nn.Conv2d(channels, 5, 3))
    net.mimic = MimicNorm("paper")
    torch.manual_seed(seed)
    with torch.no_grad():
        net[0].weight.normal_().add_(offset)
    net = net.to(dtype)
    project_weight_mean_(net)
    once = net[0].weight.detach().clone()
    project_weight_mean_(net)
    assert torch.equal(net[0].weight, once)
    assert largest_channel_mean(net) <= 4 * torch.finfo(dtype).eps


def test_the_mean_stays_zero_through_training_steps_when_projected_after_each():
    net = small_net()
    flat = nn.Sequential(net, nn.Flatten(1))
    net.head = nn.Identity()
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)
    drifted = 0.0
    for step in range(3):
        optimizer.zero_grad()
        flat(
            torch.randn(4, 3, 12, 12, generator=torch.Generator().manual_seed(step))
        ).square().sum().backward()
        optimizer.step()
        drifted = max(drifted, largest_channel_mean(net))
        project_weight_mean_(net)
        assert largest_channel_mean(net) < 1e-6
    assert drifted > 1e-3


def test_networks_without_weight_mean_are_left_alone():
    for net in (small_net(weight_mean=False), create_model("resnet18", cifar=True, num_classes=4)):
        before = copy.deepcopy(net.state_dict())
        assert not has_weight_mean(net)
        assert reparametrize_weight_mean(net) == 0
        project_weight_mean_(net)
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
        assert largest_channel_mean(net) == 0.0


def test_wrappers_do_not_hide_the_network_from_the_projection():
    wrapped = torch.optim.swa_utils.AveragedModel(small_net())
    with torch.no_grad():
        wrapped.module.wide.weight.add_(1.0)
    assert has_weight_mean(wrapped)
    project_weight_mean_(wrapped)
    assert largest_channel_mean(wrapped) < 1e-6


def test_the_reparametrization_is_the_projection_made_differentiable():
    torch.manual_seed(0)
    net = small_net().double()
    with torch.no_grad():
        net.wide.weight.add_(0.5)
    projected = copy.deepcopy(net)
    project_weight_mean_(projected)
    assert reparametrize_weight_mean(net) == len(RULES["fan-in"])
    assert reparametrize_weight_mean(net) == 0
    torch.testing.assert_close(net.wide.weight, projected.wide.weight, rtol=1e-12, atol=1e-15)
    torch.manual_seed(1)
    upstream = torch.randn_like(net.wide.weight)
    net.wide.weight.backward(upstream)
    original = net.wide.parametrizations.weight.original
    expected = upstream - upstream.mean((1, 2, 3), keepdim=True)
    torch.testing.assert_close(original.grad, expected, rtol=1e-12, atol=1e-15)
    before = original.detach().clone()
    project_weight_mean_(net)  # has nothing to do where the forward pass takes the mean off
    assert torch.equal(original, before)


def test_baking_keeps_the_function_and_the_parameters_and_is_idempotent():
    torch.manual_seed(0)
    net = small_net()
    keys = list(net.state_dict())
    reparametrize_weight_mean(net)
    with torch.no_grad():
        net.wide.parametrizations.weight.original.add_(0.5)
    parameters = {id(parameter) for parameter in net.parameters()}
    baked = baked_state_dict(net)
    assert sorted(baked) == sorted(keys)
    weight = net.wide.weight.detach().clone()
    assert bake_weight_mean(net) == len(RULES["fan-in"])
    assert sorted(net.state_dict()) == sorted(keys)
    assert all(torch.equal(value, net.state_dict()[name]) for name, value in baked.items())
    assert torch.equal(net.wide.weight, weight)
    assert {id(parameter) for parameter in net.parameters()} == parameters
    assert type(net.wide) is nn.Conv2d
    assert bake_weight_mean(net) == 0


def test_somebody_elses_parametrization_is_not_baked():
    net = small_net()
    torch.nn.utils.parametrizations.weight_norm(net.wide)
    assert bake_weight_mean(net) == 0
    assert torch.nn.utils.parametrize.is_parametrized(net.wide)


@pytest.mark.parametrize("name", [*NETS, "finet_small"])
@pytest.mark.parametrize("variant", ["code", "paper"])
def test_no_norm_is_left_but_the_last_and_a_new_network_is_centred(name, variant):
    model = mimic(name, mimic_variant=variant)
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    assert norms == [model.last_bn]
    assert not model.last_bn.affine
    assert model.last_bn.num_features == 10
    assert 0 < largest_channel_mean(model) < 1e-6
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    bare = [m for m in layers if m.bias is None]
    # The code's CIFAR ResNet50 leaves the bias of its four 1x1 shortcuts out.
    assert len(bare) == (4 if (name, variant) == ("resnet50", "code") else 0)
    assert all(not m.bias.any() for m in layers if m.bias is not None)


def test_the_ablations_leave_the_last_norm_or_the_mean_out():
    assert not has_weight_mean(mimic("squeezenet", weight_mean=False))
    none = mimic("squeezenet", weight_mean=False, last_bn=False)
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in none.modules())
    assert has_weight_mean(mimic("squeezenet", last_bn=False))


def test_equal_networks_built_one_after_the_other_have_equal_scalars():
    for name in [*RESNETS, "shufflenetv2", "finet_small"]:
        first, second = (scalars(mimic(name)) for _ in range(2))
        assert first == second
        assert first


def scalars(model):
    return [m.scale.item() for m in model.modules() if isinstance(m, LearnableScale)]


def approx(values):
    return pytest.approx(values, rel=1e-6)


@pytest.mark.parametrize(("name", "layers", "blocks"), [("resnet18", 2, 8), ("resnet50", 3, 16)])
def test_residual_scalars_are_those_of_the_table(name, layers, blocks):
    residual = [1.2**layers / number for number in range(1, blocks + 1)]
    assert scalars(mimic(name)) == approx(residual)
    assert scalars(mimic(name, mimic_variant="paper")) == approx([n**-0.5 for n in range(1, blocks + 1)])
    model = mimic(name, cifar=False)
    ends = [m.branch[-1].scale.item() for s in stages(model) for m in s]
    shortcuts = [
        m.shortcut[-1].scale.item() for s in stages(model) for m in s if len(list(m.shortcut.children()))
    ]
    assert ends == approx(residual)
    assert shortcuts == approx([1.2] * (3 if layers == 2 else 4))
    assert len(scalars(model)) == len(ends) + len(shortcuts)


def stages(model):
    return [model.layer1, model.layer2, model.layer3, model.layer4]


def test_straight_networks_have_no_scalars():
    for name in ("vgg11", "squeezenet"):
        for variant in ("code", "paper"):
            assert scalars(mimic(name, mimic_variant=variant)) == []
    assert scalars(mimic("shufflenetv2", mimic_variant="paper")) == []


def test_shufflenets_scalars_are_those_of_the_table():
    model = mimic("shufflenetv2")
    assert not any(isinstance(m, LearnableScale) for m in model.stem)
    units = [unit for stage in (model.stage2, model.stage3, model.stage4) for unit in stage]
    assert len(units) == 16
    for unit in units:
        kinds = [type(m) for m in unit.branch][-5:]
        assert kinds == [nn.Conv2d, LearnableScale, nn.ReLU, LearnableScale, LearnableShift]
        assert scalars(unit.branch) == approx([1.44, 1.0])
        assert unit.branch[-1].shift.item() == 0
        assert scalars(unit.shortcut) == (approx([1.2]) if not unit.split else [])
    assert scalars(model.conv5) == approx([1.2])
    large = mimic("shufflenetv2", cifar=False)
    assert not any(isinstance(m, LearnableShift) for m in large.modules())
    assert sorted(scalars(large)) == approx([1.2] * 4 + [1.44] * 16)


def test_finets_scalars_follow_mobilenetv2():
    model = mimic("finet_small")
    blocks = [block for stage in (model.stage2, model.stage3, model.stage4) for block in stage]
    first = [block.scale.scale.item() for block in blocks if not block.identity]
    rest = [block.scale.scale.item() for block in blocks if block.identity]
    assert first == approx([1.44] * 3)
    assert rest == approx([1.44 / number for number in range(1, 14)])
    assert scalars(model.bn5) == approx([1.2])
    assert scalars(mimic("finet_small", mimic_variant="paper")) == approx([n**-0.5 for n in range(1, 14)])
    shapes = {name: p.shape for name, p in model.named_parameters()}
    assert shapes["fc1.bias"] == (1024,)
    with_se = mimic("finet_small", se=True)
    assert with_se.stage2[0].se.fc1.bias is not None
