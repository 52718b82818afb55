"""Where a fold would be another function the normalization stays, with the reason; where it is the same, it goes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, prune

from finet_deploy.fuse import count_normalization, fuse
from finet_deploy.nn.fbn import FBNConv2d
from tests.helpers import randomize_statistics, relative_error

IMAGE = (2, 4, 8, 8)


class Net(nn.Module):
    """Layers under fixed names, and the forward that a test gives."""

    def __init__(self, forward, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            setattr(self, name, layer)
        self.run = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def conv(*args, **kwargs) -> nn.Conv2d:
    return nn.Conv2d(*(args or (4, 4, 3)), **{"padding": 1, **kwargs})


def bn(width: int = 4) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(width)


def fused_and_checked(
    model: nn.Module, shape=IMAGE, *, give_inputs: bool = False, seed: int = 0
) -> nn.Module:
    """Fuse in fp64 on random statistics; the outputs must agree whatever was folded."""
    torch.manual_seed(seed)
    randomize_statistics(model.double(), seed).eval()
    x = torch.randn(shape, dtype=torch.float64)
    fused = fuse(model, example_inputs=(x,) if give_inputs else None)
    with torch.no_grad():
        assert relative_error(fused(x.clone()), model(x.clone())) <= 1e-12
    return fused


def reasons(fused: nn.Module) -> dict[str, str]:
    return {entry.path: entry.reason for entry in fused.fuse_report.kept}


def in_place_then_two_uses(net, x):
    y = net.conv(x)
    y.add_(1)
    return net.bn(y)


def normalized_then_overwritten(net, x):
    z = net.bn(x)
    x.mul_(2)
    return net.conv(z)


def stored(net, x):
    net.feature = net.conv(x)
    return net.bn(net.feature)


def stored_in_a_list(net, x):
    features = [net.conv(x)]
    net.features = features
    return net.bn(features[0])


POINTWISE = {"padding": 0}

KEPT = {
    "the result has two readers": (lambda n, x: n.bn(y := n.conv(x)) + y, {}, "also read by"),
    "the result is returned as well": (
        lambda n, x: torch.cat([n.bn(y := n.conv(x)), y], 1),
        {},
        "also read by",
    ),
    "the result is changed in place by another reader": (in_place_then_two_uses, {}, "also read by"),
    "the result is stored in an attribute": (stored, {}, "stored in an attribute"),
    "the result is stored in a list": (stored_in_a_list, {}, "stored in an attribute"),
    "the convolution is called twice": (
        lambda n, x: n.bn(n.conv(x)) + n.conv(x * 2),
        {},
        "'conv' is called 2 times",
    ),
    "the normalization is called twice": (
        lambda n, x: n.bn(n.conv(x)) + n.bn(x),
        {},
        "'bn' is called 2 times",
    ),
    "the weight is read directly": (
        lambda n, x: n.bn(n.conv(x)) + F.conv2d(x, n.conv.weight, padding=1),
        {},
        "reads the tensors of 'conv'",
    ),
    "a statistic is read directly": (
        lambda n, x: n.bn(n.conv(x)) * n.bn.running_var.sqrt().view(1, -1, 1, 1),
        {},
        "reads the tensors of 'bn'",
    ),
    "the normalization comes after an addition": (lambda n, x: n.bn(n.conv(x) + x), {}, "operation 'add'"),
    "the normalization comes after an activation": (
        lambda n, x: n.bn(n.act(n.conv(x))),
        {"act": nn.ReLU()},
        "(ReLU)",
    ),
    "a maximum lies between": (lambda n, x: n.bn(n.pool(n.conv(x))), {"pool": nn.MaxPool2d(2)}, "MaxPool2d"),
    "a padded average lies between": (
        lambda n, x: n.bn(n.pool(n.conv(x))),
        {"pool": nn.AvgPool2d(3, padding=1)},
        "does not pass through 'pool'",
    ),
    "a padded functional average lies between": (
        lambda n, x: n.bn(F.avg_pool2d(n.conv(x), 3, 1, 1)),
        {},
        "does not pass through the operation 'avg_pool2d'",
    ),
    "an average with a divisor lies between": (
        lambda n, x: n.bn(F.avg_pool2d(n.conv(x), 2, divisor_override=3)),
        {},
        "does not pass through",
    ),
    "a mean over channels lies between": (
        lambda n, x: n.bn(n.conv(x).mean(1, keepdim=True).expand(-1, 4, -1, -1)),
        {},
        "expand",
    ),
    "a mean over the batch lies between": (
        lambda n, x: n.bn(n.conv(x).mean(0, keepdim=True)),
        {},
        "does not pass through the operation 'mean'",
    ),
    "the channels are shuffled between": (lambda n, x: n.bn(n.conv(x).flip(1)), {}, "flip"),
    "the axes are exchanged between": (
        lambda n, x: n.bn(n.conv(x).transpose(1, 2)),
        {"bn": bn(8)},
        "transpose",
    ),
    "a padded convolution comes after": (lambda n, x: n.conv(n.bn(x)), {}, "is padded"),
    "a same-padded convolution comes after": (
        lambda n, x: n.conv(n.bn(x)),
        {"conv": nn.Conv2d(4, 4, 3, padding="same")},
        "is padded",
    ),
    "a transposed convolution comes after": (
        lambda n, x: n.conv(n.bn(x)),
        {"conv": nn.ConvTranspose2d(4, 4, 3)},
        "transposed",
    ),
    "two convolutions come after": (
        lambda n, x: n.conv(z := n.bn(x)) + n.other(z),
        {"conv": conv(4, 4, 1, **POINTWISE), "other": conv(4, 4, 1, **POINTWISE)},
        "read 2 times",
    ),
    "the convolution after it is called twice": (
        lambda n, x: n.conv(n.bn(x)) + n.conv(x),
        {"conv": conv(4, 4, 1, **POINTWISE)},
        "'conv' is called 2 times",
    ),
    "an activation lies before the next convolution": (
        lambda n, x: n.conv(F.relu(n.bn(x))),
        {"conv": conv(4, 4, 1, **POINTWISE)},
        "operation 'relu'",
    ),
    "the input is overwritten before the next convolution": (
        normalized_then_overwritten,
        {"conv": conv(4, 4, 1, **POINTWISE)},
        "in place",
    ),
    "the positions are flattened into another batch": (
        lambda n, x: n.norm1(n.conv(x).view(-1, 4)),
        {"norm1": nn.BatchNorm1d(4), "bn": nn.Identity()},
        "does not pass through the operation 'view'",
    ),
    "the positions become a batch of known size": (
        lambda n, x: n.norm1(n.conv(x).view(128, -1)),
        {"norm1": nn.BatchNorm1d(4), "bn": nn.Identity()},
        "does not pass through the operation 'view'",
    ),
    "a map of many positions is flattened": (
        lambda n, x: n.norm1(n.conv(x).flatten(1)),
        {"norm1": nn.BatchNorm1d(256), "bn": nn.Identity()},
        "it has 256 channels, 'conv' gives 4",
    ),
}


@pytest.mark.parametrize("case", KEPT)
def test_kept_with_a_reason_and_still_the_same_function_when(case):
    forward, layers, phrase = KEPT[case]
    model = Net(forward, **{"conv": conv(), "bn": bn(), **layers})
    before = count_normalization(model)
    fused = fused_and_checked(model)
    assert count_normalization(fused) == before != {}
    (reason,) = reasons(fused).values()
    assert phrase in reason


FOLDED = {
    "dropout lies between": (lambda n, x: n.bn(n.drop(n.conv(x))), {"drop": nn.Dropout2d(0.5)}),
    "functional dropout lies between": (lambda n, x: n.bn(F.dropout(n.conv(x), 0.5, n.training)), {}),
    "an average without padding lies between": (
        lambda n, x: n.bn(n.pool(n.conv(x))),
        {"pool": nn.AvgPool2d(3, 2, ceil_mode=True)},
    ),
    "an average that leaves its padding out lies between": (
        lambda n, x: n.bn(n.pool(n.conv(x))),
        {"pool": nn.AvgPool2d(3, padding=1, count_include_pad=False)},
    ),
    "the head is global average, flatten, BatchNorm1d": (
        lambda n, x: n.norm1(n.pool(n.conv(x)).flatten(1)),
        {"pool": nn.AdaptiveAvgPool2d(1), "norm1": nn.BatchNorm1d(4, affine=False), "bn": nn.Identity()},
    ),
    "the head is a mean, BatchNorm1d": (
        lambda n, x: n.norm1(n.conv(x).mean((2, 3))),
        {"norm1": nn.BatchNorm1d(4, affine=False), "bn": nn.Identity()},
    ),
    "the head is global average, view, BatchNorm1d": (
        lambda n, x: n.norm1((y := F.adaptive_avg_pool2d(n.conv(x), 1)).view(y.size(0), -1)),
        {"norm1": nn.BatchNorm1d(4, affine=False), "bn": nn.Identity()},
    ),
    "the shape of the result is read as well": (
        lambda n, x: n.bn(y := n.conv(x)).view(y.shape[0], -1, y.size(3)).reshape_as(y),
        {},
    ),
    "the positions are flattened into one axis": (
        lambda n, x: n.norm1(n.conv(x).flatten(2)),
        {"norm1": nn.BatchNorm1d(4), "bn": nn.Identity()},
    ),
    "it comes after a fine-grained one": (
        lambda n, x: n.bn(n.conv(x)),
        {"conv": FBNConv2d(4, 4, 3, num_groups=2)},
    ),
    "two normalizations follow each other": (
        lambda n, x: n.again(n.bn(n.conv(x))),
        {"again": bn()},
    ),
    "an unpadded convolution comes after": (
        lambda n, x: n.conv(n.drop(n.bn(x))),
        {"conv": nn.Conv2d(4, 6, 3, 2, groups=2), "drop": nn.Dropout(0.1)},
    ),
    "a 1x1 convolution comes after, whose 'same' padding is none": (
        lambda n, x: n.conv(n.bn(x)),
        {"conv": nn.Conv2d(4, 6, 1, padding="same")},
    ),
    "it stands before a global average and a linear layer": (
        lambda n, x: n.fc(n.bn(x).mean((2, 3))),
        {"fc": nn.Linear(4, 5), "conv": nn.Identity()},
    ),
    "a squeeze of linear layers is normalized": (
        lambda n, x: n.conv(x) * n.norm1(n.fc(x.mean((2, 3)))).unsqueeze(-1).unsqueeze(-1),
        {"fc": nn.Linear(4, 4), "norm1": nn.BatchNorm1d(4), "bn": nn.Identity()},
    ),
}


@pytest.mark.parametrize("case", FOLDED)
def test_folded_exactly_when(case):
    forward, layers = FOLDED[case]
    model = Net(forward, **{"conv": conv(), "bn": bn(), **layers})
    fused = fused_and_checked(model, give_inputs="squeeze" in case)
    assert fused.fuse_report.folded and not fused.fuse_report.kept
    assert count_normalization(fused) == {}


def test_linear_on_sequences_is_kept_unless_the_normalized_axis_is_that_of_its_outputs():
    def net() -> nn.Module:
        return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6))

    assert "not known: give example_inputs" in reasons(fused_and_checked(net(), (3, 6, 5)))["1"]
    # (N, 6, 6): BatchNorm1d normalizes axis 1, the linear layer's outputs are axis 2, and both have 6 entries.
    kept = fused_and_checked(net(), (3, 6, 5), give_inputs=True)
    assert "another axis" in reasons(kept)["1"]
    assert count_normalization(fused_and_checked(net(), (3, 5), give_inputs=True)) == {}


def test_linear_on_sequences_flattened_over_batch_and_length_is_folded():
    model = Net(
        lambda n, x: n.norm((y := n.fc(x)).flatten(0, 1)).reshape_as(y),
        fc=nn.Linear(5, 6),
        norm=nn.BatchNorm1d(6),
    )
    assert count_normalization(fused_and_checked(model, (3, 6, 5), give_inputs=True)) == {}


def test_batch_norm_over_the_length_before_a_linear_layer_is_kept():
    model = nn.Sequential(nn.Identity(), nn.BatchNorm1d(5), nn.Linear(5, 3))
    kept = fused_and_checked(model, (2, 5, 5), give_inputs=True)
    assert "not the inputs of '2'" in reasons(kept)["1"]
    assert "not known: give example_inputs" in reasons(fused_and_checked(model, (2, 5, 5)))["1"]


def test_a_convolution_on_an_unbatched_signal_is_kept():
    model = nn.Sequential(nn.Conv1d(4, 6, 1), nn.BatchNorm1d(6))
    kept = fused_and_checked(model, (4, 6), give_inputs=True)
    assert "without a batch axis" in reasons(kept)["1"]


def test_a_fine_grained_layer_whose_inside_is_used_is_kept():
    model = Net(lambda n, x: n.layer(x) * n.layer.conv(x).mean(), layer=FBNConv2d(4, 4, 3, num_groups=2))
    assert "calls 'layer.conv' itself" in reasons(fused_and_checked(model))["layer"]


def test_dropout_that_is_on_in_eval_mode_is_not_taken_for_nothing():
    model = Net(lambda n, x: n.bn(F.dropout(n.conv(x), 0.5, True)), conv=conv(), bn=bn()).eval()
    assert list(reasons(fuse(model))) == ["bn"]


def test_shared_modules_are_kept():
    shared = conv()
    model = Net(lambda n, x: n.bn(n.a(x)), a=shared, b=shared, bn=bn())
    assert "shared: 'a' and 'b'" in reasons(fused_and_checked(model))["bn"]


def test_a_normalization_that_is_reached_through_a_plain_list_is_kept():
    norm = bn()
    model = Net(lambda n, x: n.hidden[0](n.conv(x)), conv=conv(), bn=norm)
    model.hidden = [norm]
    assert "shared" in reasons(fused_and_checked(model))["bn"]


def test_tied_parameters_are_kept_and_stay_tied():
    model = Net(lambda n, x: n.bn(n.conv(x)) + n.other(x), conv=conv(), other=conv(), bn=bn())
    model.other.weight = model.conv.weight
    fused = fused_and_checked(model)
    assert "shares its parameters with 'other'" in reasons(fused)["bn"]
    assert fused.conv.weight is fused.other.weight is not model.conv.weight


def weight_norm(layer: nn.Module) -> nn.Module:
    return parametrizations.weight_norm(layer)


def pruned(layer: nn.Module) -> nn.Module:
    prune.random_unstructured(layer, "weight", amount=0.5)
    return layer


@pytest.mark.parametrize("change", [weight_norm, pruned])
def test_parametrized_and_pruned_layers_are_kept(change):
    model = nn.Sequential(change(conv().double()), bn())
    assert "parametrized or pruned" in reasons(fused_and_checked(model))["1"]


@pytest.mark.parametrize("place", ["conv", "bn", "inner"])
def test_a_hook_that_sees_the_value_between_keeps_the_normalization(place):
    model = Net(lambda n, x: n.bn(n.inner(x)), inner=nn.Sequential(conv()), bn=bn())
    hooked = {"conv": model.inner[0], "bn": model.bn, "inner": model.inner}[place]
    if place == "bn":
        hooked.register_forward_pre_hook(lambda module, args: (args[0].abs(),))
    else:
        hooked.register_forward_hook(lambda module, args, output: output.abs())
    fused = fused_and_checked(model)
    assert list(count_normalization(fused)) == ["bn"]


def test_a_hook_that_only_looks_at_a_container_around_the_convolution_keeps_the_normalization():
    seen = []
    model = Net(lambda n, x: n.bn(n.inner(x)), inner=nn.Sequential(conv()), bn=bn())
    model.inner.register_forward_hook(lambda module, args, output: seen.append(output))
    assert "'inner', between it and the layer, has hooks" in reasons(fused_and_checked(model))["bn"]


@pytest.mark.parametrize("part", ["", ".conv", ".bn"])
def test_a_fine_grained_layer_with_hooks_is_kept(part):
    model = nn.Sequential(nn.Identity(), FBNConv2d(4, 4, 3, num_groups=2))
    model.get_submodule("1" + part).register_forward_hook(lambda module, args, output: output.abs())
    fused = fused_and_checked(model)
    assert "has hooks" in reasons(fused)["1"]
    assert count_normalization(fused) == {"1": "FBNConv2d"}


def test_a_hook_around_both_does_no_harm():
    model = nn.Sequential(nn.Sequential(conv(), bn()), nn.ReLU())
    model[0].register_forward_hook(lambda module, args, output: output * 2)
    assert count_normalization(fused_and_checked(model)) == {}


class StandardizedConv(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight - self.weight.mean((1, 2, 3), keepdim=True)
        return self._conv_forward(x, weight / weight.std((1, 2, 3), keepdim=True), self.bias)


class AbsoluteConv(nn.Conv2d):
    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return super()._conv_forward(input, weight.abs(), bias)


class ClampedNorm(nn.BatchNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).clamp(-1, 1)


class NamedConv(nn.Conv2d):
    """A subclass that changes nothing."""


@pytest.mark.parametrize("cls", [StandardizedConv, AbsoluteConv])
def test_a_convolution_with_a_forward_of_its_own_is_kept(cls):
    model = nn.Sequential(cls(4, 4, 3), bn())
    assert "forward of its own" in reasons(fused_and_checked(model))["1"]


def test_a_normalization_with_a_forward_of_its_own_is_kept():
    model = nn.Sequential(conv(), ClampedNorm(4))
    assert "forward of its own" in reasons(fused_and_checked(model))["1"]


def test_a_forward_put_on_one_instance_is_kept():
    model = nn.Sequential(conv(), bn())
    inner = model[0]
    inner.forward = lambda x: nn.Conv2d.forward(inner, x).abs()
    randomize_statistics(model, 0).eval()
    assert "forward of its own" in reasons(fuse(model))["1"]


def test_a_subclass_that_changes_nothing_is_folded_and_keeps_its_class():
    fused = fused_and_checked(nn.Sequential(NamedConv(4, 4, 3), bn()))
    assert count_normalization(fused) == {} and type(fused[0]) is NamedConv


def test_functional_batch_norm_is_reported_as_kept():
    def forward(n, x):
        y = F.batch_norm(n.conv(x), n.bn.running_mean, n.bn.running_var, n.bn.weight, n.bn.bias)
        return n.block(y)

    model = Net(forward, conv=conv(), bn=bn(), block=nn.Sequential(conv(), bn()))
    fused = fused_and_checked(model)
    assert [entry.path for entry in fused.fuse_report.folded] == ["block.1"]
    assert list(count_normalization(fused)) == ["bn"]
    assert any(
        entry.kind == "batch_norm" and "as a function" in entry.reason for entry in fused.fuse_report.kept
    )


def test_input_dependent_normalization_is_reported_and_not_counted():
    fused = fused_and_checked(nn.Sequential(conv(), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4)))
    assert list(reasons(fused)) == ["1", "2"] and count_normalization(fused) == {}
    assert all("come from the input" in reason for reason in reasons(fused).values())


def test_weights_that_would_overflow_the_dtype_are_kept():
    model = nn.Sequential(conv(), bn()).eval()
    model[1].running_var.fill_(1e-9)
    model[1].weight.data.fill_(6e4)
    fused = fuse(model.half())
    assert "overflow float16" in reasons(fused)["1"]
    assert count_normalization(fuse(model.float())) == {}


def test_code_that_asks_for_the_class_of_its_normalization_keeps_it():
    def forward(n, x):
        y = n.bn(n.conv(x))
        return y * n.bn.eps if isinstance(n.bn, nn.BatchNorm2d) else y

    model = Net(forward, conv=conv(), bn=bn())
    assert "runs otherwise" in reasons(fused_and_checked(model))["bn"]


def test_optional_arguments_are_traced_at_their_defaults():
    class Optional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = conv(), bn()

        def forward(self, x: Tensor, skip: Tensor | None = None, scale: bool = False) -> Tensor:
            y = self.conv(x)
            if skip is not None:
                y = self.conv(skip)
            return self.bn(y) * 2 if scale else self.bn(y)

    assert count_normalization(fused_and_checked(Optional())) == {}


class Branching(nn.Module):
    """Python control flow on the input's shape: `torch.fx` cannot trace it, `torch.export` can."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Sequential(conv(), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x) if x.shape[2] > 4 else x
        return self.head(x)


class Reaching(Branching):
    def forward(self, x: Tensor) -> Tensor:
        x = self.body(x) if x.shape[2] > 4 else x
        return self.head(x) + self.head[0](x).mean()


def test_export_proves_folds_where_symbolic_tracing_fails():
    model = Branching(nn.Sequential(conv(), bn(), nn.Hardswish(), nn.Linear(8, 8), bn()))
    fused = fused_and_checked(model, give_inputs=True)
    assert [entry.into for entry in fused.fuse_report.folded] == ["body.0", "head.0"]
    assert "another axis" in reasons(fused)["body.4"]


def test_export_keeps_what_is_called_twice_or_read_directly():
    model = Reaching(nn.Sequential(conv(), bn()))
    fused = fused_and_checked(model, give_inputs=True)
    assert [entry.into for entry in fused.fuse_report.folded] == ["body.0"]
    assert list(count_normalization(fused)) == ["head.1"]


def test_export_keeps_what_is_called_past_its_module():
    class Functional(Branching):
        def forward(self, x: Tensor) -> Tensor:
            x = self.body(x) if x.shape[2] > 4 else x
            bn = self.head[1]
            y = F.batch_norm(self.head[0](x), bn.running_mean, bn.running_var, bn.weight, bn.bias)
            return y + F.conv2d(x, self.body[3].weight, padding=1)

    model = Functional(nn.Sequential(conv(), bn(), nn.ReLU(), conv(), bn()))
    fused = fused_and_checked(model, give_inputs=True)
    assert [entry.into for entry in fused.fuse_report.folded] == ["body.0"]
    assert "reads the tensors of 'body.3'" in reasons(fused)["body.4"]
    assert "head.1" in reasons(fused)


def test_without_inputs_only_parts_that_nobody_reaches_into_are_folded():
    fused = fused_and_checked(Branching(nn.Sequential(conv(), bn())))
    assert [entry.into for entry in fused.fuse_report.folded] == ["body.0", "head.0"]
    reached = fused_and_checked(Reaching(nn.Sequential(conv(), bn())))
    assert [entry.into for entry in reached.fuse_report.folded] == ["body.0"]
    assert "no call graph proves" in reasons(reached)["head.1"]
    assert "give example_inputs" in reasons(reached)["head.1"]


def test_a_trace_that_is_not_the_network_is_not_believed():
    class Deceiving(nn.Module):
        """Under tracing `x` is not a Tensor, so the trace shows the other branch."""

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = conv(), bn()

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return self.bn(y) + y if isinstance(x, torch.Tensor) else self.bn(y)

    fused = fused_and_checked(Deceiving(), give_inputs=True)
    assert list(count_normalization(fused)) == ["bn"]
