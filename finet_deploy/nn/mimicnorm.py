"""MimicNorm: train without inner batch normalization, with a weight mean of zero and one last BN.

"MimicNorm: Weight Mean and Last BN Layer Mimic the Dynamic of Batch Normalization", arXiv 2010.09278, and its code,
Kid-key/MimicNorm at d64fb51. In five lines: every convolution has a bias and no norm; its filters are kept at zero
mean over their fan-in; the variance that this costs, 1 - 1/pi, is given back at initialization; a residual branch
ends in one learnable scalar; `BatchNorm1d` without affine stands on the logits.

The paper and its code differ in the initialization, in the scalars' first values and in which convolutions count.
`variant="code"` is the default, because the published accuracies are the code's; `variant="paper"` is the text.
What the paper leaves open is as in the code.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from finet_deploy.errors import UsageError

__all__ = [
    "LearnableScale",
    "LearnableShift",
    "MimicNorm",
    "ZeroMean",
    "bake_weight_mean",
    "baked_state_dict",
    "code_fan_in",
    "has_weight_mean",
    "initialize",
    "is_reparametrized",
    "keep_stored_scales",
    "largest_channel_mean",
    "project_weight_mean_",
    "reparametrize_weight_mean",
    "weight_mean_layers",
]

GAIN = 1.2  # the code's stand-in for 1 / sqrt(1 - 1/pi) = 1.2112 a layer
PAPER_VARIANCE = 2 / (1 - 1 / math.pi)  # 2.934: times 1/n the variance of Theorem 3 for wide layers
MIN_FAN_IN = 50  # the CIFAR code's rule: filters with no more inputs than this keep their mean
FAN = Callable[[nn.Conv2d], float]


class LearnableScale(nn.Module):
    """x times one learnable number, any shape. In the forward pass the input is kept for the gradient."""

    def __init__(self, initial: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((1,), initial))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


class LearnableShift(nn.Module):
    """x plus one learnable number, any shape."""

    def __init__(self, initial: float = 0.0) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.full((1,), initial))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift


class ZeroMean(nn.Module):
    """The differentiable form of weight mean, as a parametrization: (O, C/groups, k, k) minus its filters' means.

    The paper's supplement C calls the projection enough; this form is there to compare.
    """

    def forward(self, weight: Tensor) -> Tensor:
        return weight - weight.mean((1, 2, 3), keepdim=True)

    def right_inverse(self, weight: Tensor) -> Tensor:
        return weight


@dataclass(frozen=True)
class MimicNorm:
    """How a network is built with MimicNorm. A network built so holds this as its attribute `mimic`.

    variant: "code" or "paper". cifar: the 32 px form, whose code has rules of its own. weight_mean, last_bn: off for
    the ablations of the paper's Table 2 (both off: no normalization at all).
    """

    variant: str = "code"
    cifar: bool = False
    weight_mean: bool = True
    last_bn: bool = True

    @property
    def rule(self) -> str | None:
        """Which convolutions keep a zero mean, by `weight_mean_layers`'s name of the rule; None without weight mean."""
        if not self.weight_mean:
            return None
        if self.variant == "paper":
            return "paper"
        return "fan-in" if self.cifar else "groups"

    def scale(self, layers: int) -> nn.Module:
        """The code's scalar that stands for the gain of `layers` convolutions, 1.2^layers; the paper has none."""
        return LearnableScale(GAIN**layers) if self.variant == "code" else nn.Identity()

    def residual_scale(self, layers: int, block: int) -> nn.Module:
        """The scalar at the end of residual branch number `block` = 1, 2, ... over the whole network.

        Code: 1.2^layers / block, for `layers` convolutions in the branch. Paper: 1 / sqrt(block), after SkipInit.
        """
        return LearnableScale(GAIN**layers / block if self.variant == "code" else block**-0.5)

    def last_norm(self, num_classes: int) -> nn.Module:
        """The last BN on (N, num_classes); without affine, "to keep the same distribution" of the classes."""
        return nn.BatchNorm1d(num_classes, affine=False) if self.last_bn else nn.Identity()

    def initialize(self, model: nn.Module, *, gain: float = 2.0, fan: FAN | None = None) -> None:
        """Draw all weights of `model`, set all biases to zero and project, as section 4 of the paper or the code does.

        gain, fan: the code's variance of a convolution is gain / fan(convolution), the fan-in by default. In the
        paper's variant it is 2.934 / fan-in where the filters have zero mean; elsewhere as in the code with gain 2.
        """
        fan = fan or code_fan_in
        if self.variant == "paper":
            eligible = {id(layer) for layer in weight_mean_layers(model, "paper").values()}
            code_fan = fan

            def variance(conv: nn.Conv2d) -> float:
                return PAPER_VARIANCE / fan_in(conv) if id(conv) in eligible else 2.0 / code_fan(conv)

        else:

            def variance(conv: nn.Conv2d) -> float:
                return gain / fan(conv)

        initialize(model, variance)
        attributes: Any = model  # nn.Module's annotations know only tensors and modules
        attributes.mimic = self
        project_weight_mean_(model)


def fan_in(conv: nn.Conv2d) -> int:
    """Inputs of one filter: k * k * C / groups."""
    return conv.weight[0].numel()


def code_fan_in(conv: nn.Conv2d) -> float:
    """The fan-in of the code's ShuffleNetV2 and SqueezeNet: at least four channels, so that depthwise filters start
    small. For any other convolution it is the fan-in."""
    return math.prod(conv.kernel_size) * max(4, conv.in_channels / conv.groups)


def initialize(model: nn.Module, variance: Callable[[nn.Conv2d], float]) -> None:
    """Convolutions from N(0, variance(conv)), linear layers from N(0, 2 / in_features), biases zero: in place."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.normal_(module.weight, 0.0, variance(module) ** 0.5)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, (2 / module.in_features) ** 0.5)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def weight_mean_layers(model: nn.Module, rule: str) -> dict[str, nn.Conv2d]:
    """Dotted path -> convolution, for those of `model` whose filters the rule keeps at zero mean.

    "fan-in": more than 50 inputs a filter (the code for CIFAR: not the RGB stem). "groups": not grouped (the code for
    ImageNet). "paper": all but depthwise. Never a linear layer. Raises UsageError for another rule.
    """
    if rule not in _RULES:
        raise UsageError(f"unknown rule of weight mean {rule!r}", do=f"use one of {', '.join(_RULES)}")
    eligible = _RULES[rule]
    return {path: m for path, m in model.named_modules() if isinstance(m, nn.Conv2d) and eligible(m)}


_RULES: dict[str, Callable[[nn.Conv2d], bool]] = {
    "fan-in": lambda conv: fan_in(conv) > MIN_FAN_IN,
    "groups": lambda conv: conv.groups == 1,
    "paper": lambda conv: conv.groups == 1 or conv.groups < conv.in_channels,
}


def _own_layers(model: nn.Module) -> Iterator[nn.Conv2d]:
    """The weight-mean convolutions of every MimicNorm network in `model`, wrappers (DDP, EMA, compile) included."""
    for module in model.modules():
        mimic = getattr(module, "mimic", None)
        if isinstance(mimic, MimicNorm) and mimic.rule is not None:
            yield from weight_mean_layers(module, mimic.rule).values()


def has_weight_mean(model: nn.Module) -> bool:
    """Whether `model` holds a network whose filters are to be kept at zero mean."""
    return next(_own_layers(model), None) is not None


@torch.no_grad()
def project_weight_mean_(model: nn.Module) -> None:
    """Set the mean of every eligible filter to zero, in place: after each optimizer step, as the code does.

    A mean within the weights' rounding counts as zero, so a second call changes no bit. Nothing happens to networks
    without weight mean, and to layers that are re-parametrized.
    """
    for layer in _own_layers(model):
        if not is_reparametrized(layer):
            _centre_(layer.weight)


def _centre_(weight: Tensor) -> None:
    """(O, C/groups, k, k): take every filter's mean off, twice: a large mean leaves its own rounding behind."""
    dims = (1, 2, 3)
    for _ in range(2):
        mean = weight.mean(dims, keepdim=True)  # (O, 1, 1, 1)
        largest = torch.maximum(weight.amax(dims, keepdim=True), -weight.amin(dims, keepdim=True))
        weight.sub_(mean.where(mean.abs() > 4 * torch.finfo(weight.dtype).eps * largest, 0.0))


def largest_channel_mean(model: nn.Module) -> float:
    """The largest absolute filter mean over the largest absolute weight, of all eligible layers; 0 without any.

    Below 1e-6 the projection was done: it leaves about 1e-8 in fp32.
    """
    worst = 0.0
    for layer in _own_layers(model):
        weight = layer.weight.detach().double()
        worst = max(worst, float(weight.mean((1, 2, 3)).abs().max() / weight.abs().max()))
    return worst


def reparametrize_weight_mean(model: nn.Module) -> int:
    """Make weight mean part of the forward pass and its gradient (`ZeroMean`), in place; returns how many layers.

    Layers that have it already stay as they are. Undone by `bake_weight_mean`.
    """
    layers = [layer for layer in _own_layers(model) if not is_reparametrized(layer)]
    for layer in layers:
        parametrize.register_parametrization(layer, "weight", ZeroMean())
        layer.train(layer.training)  # the new modules too
    return len(layers)


def bake_weight_mean(model: nn.Module) -> int:
    """Replace every `ZeroMean` parametrization by the weight that it gives, in place; returns how many layers.

    The parameters stay the same objects. A second call finds nothing to do.
    """
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d) and is_reparametrized(m)]
    for layer in layers:
        parametrize.remove_parametrizations(layer, "weight", leave_parametrized=True)
    return len(layers)


def is_reparametrized(layer: nn.Module) -> bool:
    """By `ZeroMean` and nothing else: what others have put on the weight is theirs."""
    if not parametrize.is_parametrized(layer, "weight"):
        return False
    return [type(each) for each in layer.parametrizations["weight"]] == [ZeroMean]  # type: ignore[index]


def baked_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """`model.state_dict()` with the weights that re-parametrized ones stand for, while the model stays as it is."""
    state: dict[str, Tensor] = dict(model.state_dict())
    for path, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and parametrize.is_parametrized(module, "weight"):
            prefix = f"{path}." if path else ""
            del state[f"{prefix}parametrizations.weight.original"]
            state[f"{prefix}weight"] = module.weight.detach()
    return state


@torch.no_grad()
def keep_stored_scales(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Give the scalars of `model` that a fused network's `state` still holds their stored values.

    `fuse` keeps a multiplication only where the scalar's sign forbids the fold. So the network that the state is to
    be loaded into must have that sign before it is fused, to get the same form.
    """
    for path, module in model.named_modules():
        stored = state.get(f"{path}.scale")
        if isinstance(module, LearnableScale) and stored is not None and stored.shape == module.scale.shape:
            module.scale.copy_(stored)
