"""What the networks of MimicNorm's tables are made of: a convolution with bias, then BN, or a scalar, or nothing."""

from __future__ import annotations

from torch import nn

from finet_deploy.nn.mimicnorm import MimicNorm, initialize

__all__ = ["conv_bn", "initialize_network"]


def conv_bn(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    mimic: MimicNorm | None,
    *,
    stride: int = 1,
    groups: int = 1,
    relu: bool = True,
    scale: int = 0,
) -> list[nn.Module]:
    """The layers (N, C, H, W) -> (N, O, H', W'), padded by half a kernel.

    The bias in front of a BN is MimicNorm's code; it changes nothing. scale: of how many convolutions the learnable
    scalar stands for the gain that MimicNorm's code puts in the norm's place; 0 for none.
    """
    padding = kernel_size // 2
    layers: list[nn.Module] = [
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, groups=groups)
    ]
    if mimic is None:
        layers.append(nn.BatchNorm2d(out_channels))
    elif scale and mimic.variant == "code":
        layers.append(mimic.scale(scale))
    return [*layers, nn.ReLU(inplace=True)] if relu else layers


def initialize_network(model: nn.Module, mimic: MimicNorm | None, gain: float) -> None:
    """MimicNorm's initialization with the code's gain; with BN, He's of the same fan-in."""
    if mimic is None:
        initialize(model, lambda conv: 2 / conv.weight[0].numel())
    else:
        mimic.initialize(model, gain=gain)
