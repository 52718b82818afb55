"""SqueezeNet with simple bypass (arXiv 1602.07360), with BN or MimicNorm, as MimicNorm's code has it for CIFAR.

Its ImageNet form is ours: SqueezeNet 1.0's stem and pools with the same body; MimicNorm's ImageNet table has no
SqueezeNet. Nothing here is called a residual branch by MimicNorm's code: the bypasses have no scalars, and in the
paper's variant we leave it at that.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from finet_deploy.nn.conv_bn import conv_bn, initialize_network
from finet_deploy.nn.mimicnorm import MimicNorm

__all__ = ["SqueezeNet"]

STEM_WIDTH = 96
# (squeeze width, output width) of fire2 to fire9.
FIRES = ((16, 128), (16, 128), (32, 256), (32, 256), (48, 384), (48, 384), (64, 512), (64, 512))
CODE_GAIN = 2.8


class Fire(nn.Module):
    """1x1 down to `squeezed`, then 1x1 and 3x3 side by side: (N, C, H, W) -> (N, O, H, W)."""

    def __init__(self, in_channels: int, squeezed: int, out_channels: int, mimic: MimicNorm | None) -> None:
        super().__init__()
        half = out_channels // 2
        self.squeeze = nn.Sequential(*conv_bn(in_channels, squeezed, 1, mimic))
        self.expand1x1 = nn.Sequential(*conv_bn(squeezed, half, 1, mimic))
        self.expand3x3 = nn.Sequential(*conv_bn(squeezed, half, 3, mimic))
        self.bypass = in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        s = self.squeeze(x)  # (N, squeezed, H, W)
        y = torch.cat([self.expand1x1(s), self.expand3x3(s)], 1)  # (N, O, H, W)
        return y + x if self.bypass else y


class SqueezeNet(nn.Module):
    """(N, 3, 224, 224) -> (N, num_classes); `cifar`: (N, 3, 32, 32).

    No fully connected layer: conv10, global average pool, last BN. fire9 keeps its width but has no bypass.
    """

    def __init__(
        self, *, num_classes: int = 1000, cifar: bool = False, mimic: MimicNorm | None = None
    ) -> None:
        super().__init__()
        stem = conv_bn(3, STEM_WIDTH, 3 if cifar else 7, mimic, stride=1 if cifar else 2)
        self.stem = nn.Sequential(*stem)
        self.pool = nn.MaxPool2d(2, 2) if cifar else nn.MaxPool2d(3, 2, ceil_mode=True)
        C = STEM_WIDTH
        fires = []
        for squeezed, width in FIRES:
            fires.append(Fire(C, squeezed, width, mimic))
            C = width
        fires[-1].bypass = False
        self.fires2to4 = nn.Sequential(*fires[:3])
        self.fires5to8 = nn.Sequential(*fires[3:7])
        self.fire9 = fires[7]
        self.conv10 = nn.Conv2d(C, num_classes, 1)
        self.last_bn = mimic.last_norm(num_classes) if mimic else nn.Identity()
        initialize_network(self, mimic, CODE_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))  # (N, 96, 56, 56), from 32 px (N, 96, 16, 16)
        x = self.pool(self.fires2to4(x))  # (N, 256, 28, 28)
        x = self.pool(self.fires5to8(x))  # (N, 512, 14, 14)
        x = self.conv10(self.fire9(x))  # (N, num_classes, 14, 14)
        return self.last_bn(x.mean((2, 3), keepdim=True).flatten(1))  # (N, num_classes)
