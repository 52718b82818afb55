"""The last BN and the learnable scalars are folded where that is exact, and kept with the reason where it is not."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from finet_deploy.errors import UsageError
from finet_deploy.fuse import count_normalization, fuse
from finet_deploy.images import default_images, evaluation_inputs, preprocessing_for
from finet_deploy.nn.mimicnorm import (
    LearnableScale,
    LearnableShift,
    is_reparametrized,
    reparametrize_weight_mean,
)
from finet_deploy.untrained import prepare_untrained
from finet_deploy.verify import verify
from finet_deploy.zoo import create_model
from tests.helpers import relative_error

settings.register_profile("mimic", max_examples=30, deadline=None, derandomize=True)

FACTORS = st.one_of(st.just(0.0), st.floats(1e-3, 30), st.floats(-30, -1e-3))


def randomize(model, seed):
    """Biases, scalars and the last BN's statistics, as training would leave them: nothing at its neutral value."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(like, low, high):
        return low + (high - low) * torch.rand(like.shape, generator=generator, dtype=torch.float64).to(like)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                module.bias.copy_(uniform(module.bias, -0.3, 0.3))
            elif isinstance(module, LearnableScale):
                module.scale.mul_(uniform(module.scale, 0.5, 1.5))
            elif isinstance(module, LearnableShift):
                module.shift.copy_(uniform(module.shift, -0.3, 0.3))
            elif isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.copy_(uniform(module.running_mean, -1, 1))
                module.running_var.copy_(10 ** uniform(module.running_var, -2, 2))
    return model.eval()


def mimic(name, **options):
    return create_model(name, norm="mimic", num_classes=10, seed=0, **{"cifar": True, **options})


def kept(model):
    return {entry.path: entry.reason for entry in model.fuse_report.kept}


def folded(model):
    return {entry.path: entry.into for entry in model.fuse_report.folded}


@settings(settings.get_profile("mimic"))
@given(
    seed=st.integers(0, 2**16),
    shape=st.sampled_from([(3, 4, 1, 0, 1), (4, 6, 3, 1, 2), (4, 4, 3, 1, 4), (2, 5, 3, 0, 1)]),
    before=FACTORS,
    after=FACTORS,
    shift=st.floats(-3, 3),
    bias=st.booleans(),
)
def test_scalars_round_a_relu_fold_exactly_at_every_sign(seed, shape, before, after, shift, bias):
    torch.manual_seed(seed)
    C, O, k, padding, groups = shape  # noqa: E741
    net = nn.Sequential(
        nn.Conv2d(C, O, k, padding=padding, groups=groups, bias=bias),
        LearnableScale(before),
        nn.ReLU(inplace=True),
        LearnableScale(after),
        LearnableShift(shift),
        nn.Conv2d(O, 3, 3, padding=1),
    ).eval()
    net.double()
    fused = fuse(net)
    x = torch.randn(2, C, 6, 5, dtype=torch.float64)
    assert relative_error(fused(x), net(x)) <= 1e-12
    assert ("3" in folded(fused)) == (after >= 0)
    assert isinstance(fused[1], nn.Identity)
    assert isinstance(fused[4], LearnableShift)
    assert ("ReLU" if after >= 0 else "LearnableScale") in kept(fused)[
        "4"
    ]  # each names what stands before it
    if after < 0:
        assert "negative" in kept(fused)["3"]
    single = copy.deepcopy(net).float()
    assert relative_error(fuse(single)(x.float()), single(x.float())) <= 1e-5


@settings(settings.get_profile("mimic"))
@given(
    seed=st.integers(0, 2**16),
    pooled=st.booleans(),
    decades=st.sampled_from([0, 4, 12]),
    size=st.sampled_from([0.0, 1.0, 1e4]),
    bias=st.booleans(),
)
def test_the_last_norm_folds_exactly_into_the_linear_layer_or_through_the_pool(
    seed, pooled, decades, size, bias
):
    torch.manual_seed(seed)
    head = [nn.Conv2d(6, 5, 1, bias=bias), nn.AdaptiveAvgPool2d(1), nn.Flatten(1)]
    if not pooled:
        head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(1), nn.Linear(6, 5, bias=bias)]
    net = nn.Sequential(*head, nn.BatchNorm1d(5, affine=False)).eval()
    net[3].running_mean.copy_(size * torch.randn(5))
    net[3].running_var.copy_(10 ** (decades * (torch.rand(5) - 0.5)))
    net.double()
    fused = fuse(net)
    x = torch.randn(3, 6, 4, 4, dtype=torch.float64)
    assert count_normalization(fused) == {}
    assert folded(fused) == {"3": "0" if pooled else "2"}
    assert relative_error(fused(x), net(x)) <= 1e-12


EXPECTED = {  # number of layers folded and of those kept
    "vgg11": (1, 0),
    "resnet18": (8 + 1, 0),
    "resnet50": (16 + 1, 0),
    "squeezenet": (1, 0),
    "shufflenetv2": (16 + 16 + 3 + 1 + 1, 16),
    "finet_small": (16 + 1 + 1, 0),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_every_network_folds_exactly_and_nothing_is_left_but_the_additions(name):
    model = randomize(mimic(name), 1)
    x = torch.randn(6, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        fused = fuse(model)
        single, fused_single = model(x), fused(x)
        double = copy.deepcopy(model).double()
        truth, fused_double = double(x.double()), fuse(double)(x.double())
    assert relative_error(fused_double, truth) <= 1e-12
    assert relative_error(fused_single.double(), truth) <= 1e-5
    assert torch.equal(fused_single.argmax(1), single.argmax(1))
    assert count_normalization(fused) == {}
    assert (len(fused.fuse_report.folded), len(fused.fuse_report.kept)) == EXPECTED[name]
    assert all("ReLU" in reason for reason in kept(fused).values())
    assert not any(isinstance(m, LearnableScale) for m in fused.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    again = fuse(fused)
    assert all(torch.equal(value, fused.state_dict()[key]) for key, value in again.state_dict().items())


def test_the_imagenet_forms_scalars_of_branch_and_shortcut_fold():
    model = randomize(mimic("resnet18", cifar=False), 3).double()
    fused = fuse(model)
    assert folded(fused)["layer2.0.branch.3"] == "layer2.0.branch.2"
    assert folded(fused)["layer2.0.shortcut.1"] == "layer2.0.shortcut.0"
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    assert relative_error(fused(x), model(x)) <= 1e-12


def test_a_report_names_what_stands_between_a_scalar_and_its_layer():
    entries = {e.path: e for e in fuse(randomize(mimic("shufflenetv2"), 0)).fuse_report.folded}
    assert entries["stage2.1.branch.6"].between == ("stage2.1.branch.5",)  # the ReLU
    assert entries["stage2.1.branch.4"].between == ()
    last = {e.path: e for e in fuse(randomize(mimic("squeezenet"), 0)).fuse_report.folded}["last_bn"]
    assert (last.into, last.between) == ("conv10", ("mean", "flatten"))


class Branch(nn.Module):
    """A convolution with a scalar, in a network whose use of them can be varied."""

    def __init__(self):
        super().__init__()
        self.conv, self.other = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1)
        self.scale = LearnableScale(1.5)

    def forward(self, x):
        return self.scale(self.conv(x))


class SharedScale(Branch):
    def forward(self, x):
        return self.scale(self.other(self.scale(self.conv(x))))


class ResultReadTwice(Branch):
    def forward(self, x):
        y = self.conv(x)
        return self.scale(y) + y


class ScaleReadDirectly(Branch):
    def forward(self, x):
        return self.scale(self.conv(x)) + self.scale.scale


class AfterASum(Branch):
    def forward(self, x):
        y = self.conv(x)
        return self.scale(y + self.other(y))


class Tied(Branch):
    def __init__(self):
        super().__init__()
        self.second = LearnableScale(1.0)
        self.second.scale = self.scale.scale

    def forward(self, x):
        return self.second(self.other(self.scale(self.conv(x))))


class OwnForward(LearnableScale):
    def forward(self, x):
        return x * self.scale.exp()


def with_own_forward():
    net = Branch()
    net.scale = OwnForward(1.5)
    return net


def with_a_hook():
    net = Branch()
    net.scale.register_forward_hook(lambda module, args, y: y + 1)
    return net


def with_a_hooked_convolution():
    net = Branch()
    net.conv.register_forward_hook(lambda module, args, y: y + 1)
    return net


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (SharedScale, "called 2 times"),
        (ResultReadTwice, "also read by"),
        (ScaleReadDirectly, "reads the tensors"),
        (AfterASum, "'add'"),
        (Tied, "shares its parameters"),
        (with_own_forward, "forward of its own"),
        (with_a_hook, "has hooks"),
        (with_a_hooked_convolution, "has hooks"),
    ],
)
def test_a_scalar_whose_fold_is_not_proven_stays_with_the_reason(make, reason):
    torch.manual_seed(0)
    net = make().eval()
    fused = fuse(net)
    x = torch.randn(2, 3, 4, 4)
    assert torch.equal(fused(x), net(x))
    assert reason in kept(fused)["scale"]
    assert "scale" not in folded(fused)


class Branching(nn.Module):
    """fx cannot trace it; torch.export can, for inputs like the example's."""

    def __init__(self):
        super().__init__()
        self.conv, self.scale, self.after = nn.Conv2d(3, 4, 3), LearnableScale(-0.7), LearnableScale(0.7)
        self.shift = LearnableShift(0.2)

    def forward(self, x):
        if x.shape[0] > 100:
            return x
        y = self.shift(self.scale(self.conv(x)))
        return self.after(torch.relu(y)) if y.dim() == int(y.ndim) else y


@pytest.mark.parametrize("trace", ["whole", "export"])
def test_scalars_fold_by_either_kind_of_call_graph(trace):
    torch.manual_seed(0)
    net = Branching().eval().double()
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64)
    fused = fuse(net, example_inputs=(x,)) if trace == "export" else fuse(Branch().eval())
    if trace == "whole":
        assert folded(fused) == {"scale": "conv"}
        return
    assert relative_error(fused(x), net(x)) <= 1e-12
    assert folded(fused) == {"scale": "conv", "shift": "conv", "after": "conv"}


def test_a_reparametrized_network_is_baked_in_the_copy_alone():
    model = randomize(mimic("squeezenet"), 5)
    plain = fuse(model)
    assert reparametrize_weight_mean(model) > 0
    fused = fuse(model)
    assert any(is_reparametrized(module) for module in model.modules())
    assert not any(is_reparametrized(module) for module in fused.modules())
    assert fused.state_dict().keys() == plain.state_dict().keys()
    for key, value in fused.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[key], rtol=1e-5, atol=1e-7)
    baked = [entry.path for entry in fused.fuse_report.rewritten if entry.kind == "ZeroMean"]
    assert "conv10" in baked
    assert count_normalization(fused) == {}


def test_a_network_in_train_mode_is_refused():
    with pytest.raises(UsageError, match="last_bn.*model.eval"):
        fuse(mimic("resnet18").train())


def untrained(name):
    model = mimic(name)
    pictures = default_images(12, preprocessing_for(model.model_config))
    return prepare_untrained(model, pictures), evaluation_inputs(pictures[:2])


@pytest.mark.parametrize("name", ["resnet18", "squeezenet", "shufflenetv2", "finet_small"])
def test_untrained_networks_get_something_to_fold_and_a_certificate(name):
    model, inputs = untrained(name)
    assert model.last_bn.running_mean.abs().min() > 0
    assert (model.last_bn.running_var != 1).all()
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear) and m.bias is not None]
    assert all(layer.bias.std() > 0 for layer in layers)
    new = dict(mimic(name).named_parameters())
    scalars = [n for n in new if n.endswith((".scale", ".shift"))]
    assert all(dict(model.named_parameters())[n] != new[n] for n in scalars)
    certificate = verify(model, inputs=inputs)
    assert certificate.passed, certificate


@pytest.mark.parametrize("name", [pytest.param("resnet18", marks=pytest.mark.thorough), "squeezenet"])
def test_a_dropped_last_norm_is_rejected(name):
    model, inputs = untrained(name)

    def drop(network):
        fused = fuse(network)
        undone = copy.deepcopy(network)
        undone.last_bn = nn.Identity().eval()
        wrong = fuse(undone)
        wrong.fuse_report = fused.fuse_report
        return wrong

    certificate = verify(model, inputs=inputs, fuse_fn=drop)
    assert not certificate.passed
    assert certificate.check("algebra/fp64").passed is False
    given_model = verify(model, drop(model), inputs=inputs)
    assert not given_model.passed
