"""ShuffleNetV2 (arXiv 1807.11164) with BN or MimicNorm, as MimicNorm's code has it: 1x for CIFAR, 0.5x for ImageNet.

The CIFAR net is of the code's own kind: no ReLU after the stem, the stride-2 branch widens in its last convolution,
and with MimicNorm a branch's result is multiplied and shifted once more *after* its ReLU. The ImageNet net is
torchvision's. In the paper's variant there are no scalars: its branches are concatenated, not residual.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from finet_deploy.nn.conv_bn import conv_bn, initialize_network
from finet_deploy.nn.mimicnorm import LearnableScale, LearnableShift, MimicNorm

__all__ = ["ShuffleNetV2"]

STEM_WIDTH = 24
STAGE_BLOCKS = (4, 8, 4)  # the first of each has stride 2
WIDTHS = {"1x": (116, 232, 464), "0.5x": (48, 96, 192)}
HEAD_WIDTH = 1024


def shuffle(x: Tensor) -> Tensor:
    """(N, 2 C, H, W) -> the same, the channels of the two halves taking turns."""
    return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


class ShuffleUnit(nn.Module):
    """Stride 1: half of the channels pass, the others go through the branch. Stride 2: two branches, side by side."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, cifar: bool, mimic: MimicNorm | None
    ) -> None:
        super().__init__()
        half = out_channels // 2
        self.split = stride == 1
        C = half if self.split else in_channels
        inner = C if cifar else half
        self.branch = nn.Sequential(
            *conv_bn(C, inner, 1, mimic),
            *conv_bn(inner, inner, 3, mimic, stride=stride, groups=inner, relu=False),
            *conv_bn(inner, half, 1, mimic, scale=2),
        )
        if mimic and cifar and mimic.variant == "code":
            self.branch.extend([LearnableScale(1.0), LearnableShift()])
        self.shortcut: nn.Module = nn.Identity()
        if not self.split:
            self.shortcut = nn.Sequential(
                *conv_bn(C, C, 3, mimic, stride=stride, groups=C, relu=False),
                *conv_bn(C, half, 1, mimic, scale=1),
            )

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = x.chunk(2, 1) if self.split else (x, x)  # (N, C, H, W) each
        return shuffle(torch.cat([self.shortcut(kept), self.branch(changed)], 1))  # (N, 2 half, H/s, W/s)


class ShuffleNetV2(nn.Module):
    """(N, 3, 224, 224) -> (N, num_classes); `cifar`: (N, 3, 32, 32), twice as wide, stem stride 1, no max-pool."""

    def __init__(
        self, *, num_classes: int = 1000, cifar: bool = False, mimic: MimicNorm | None = None
    ) -> None:
        super().__init__()
        C = STEM_WIDTH
        self.stem = nn.Sequential(*conv_bn(3, C, 3, mimic, stride=1 if cifar else 2, relu=not cifar))
        self.pool = nn.Identity() if cifar else nn.MaxPool2d(3, stride=2, padding=1)
        stages = []
        for width, blocks in zip(WIDTHS["1x" if cifar else "0.5x"], STAGE_BLOCKS):
            first = ShuffleUnit(C, width, 2, cifar, mimic)
            stages.append(
                nn.Sequential(first, *(ShuffleUnit(width, width, 1, cifar, mimic) for _ in range(blocks - 1)))
            )
            C = width
        self.stage2, self.stage3, self.stage4 = stages
        self.conv5 = nn.Sequential(*conv_bn(C, HEAD_WIDTH, 1, mimic, scale=1))
        self.fc = nn.Linear(HEAD_WIDTH, num_classes)
        self.last_bn = mimic.last_norm(num_classes) if mimic else nn.Identity()
        initialize_network(self, mimic, 2.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.stem(x))  # (N, 24, 56, 56), from 32 px (N, 24, 32, 32)
        x = self.stage2(x)  # (N, 48, 28, 28), from 32 px (N, 116, 16, 16)
        x = self.stage3(x)
        x = self.conv5(self.stage4(x))  # (N, 1024, 7, 7), from 32 px (N, 1024, 4, 4)
        return self.last_bn(self.fc(x.mean((2, 3), keepdim=True).flatten(1)))  # (N, num_classes)
