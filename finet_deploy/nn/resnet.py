"""ResNet18 and ResNet50 with BN, with MimicNorm, or with FBN on their convolutions (the Finet paper's Table 7).

The nets are torchvision's (He et al., arXiv 1512.03385). With FBN every pair of convolution and batch norm becomes
one FBN convolution, but for the stem, whose three inputs G does not divide. With MimicNorm (arXiv 2010.09278) the
norms are gone, each residual branch ends in a scalar, and the last BN stands on the logits.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

from finet_deploy.nn.finet import RGB, Grouping
from finet_deploy.nn.mimicnorm import MimicNorm

__all__ = ["ResNet"]

STAGE_WIDTHS = (64, 128, 256, 512)
STAGE_BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}


class _Block(nn.Module):
    """A residual block from (kernel_size, width, stride) rows: two 3x3 (basic), or 1x1, 3x3, 1x1 (bottleneck).

    number: 1, 2, ... over the whole network.
    """

    def __init__(
        self,
        in_channels: int,
        rows: list[tuple[int, int, int]],
        grouping: Grouping,
        mimic: MimicNorm | None,
        number: int,
    ) -> None:
        super().__init__()
        C, stride = in_channels, 1
        layers: list[nn.Module] = []
        for kernel_size, width, row_stride in rows:
            layers += [grouping.conv(C, width, kernel_size, row_stride), nn.ReLU(inplace=True)]
            C, stride = width, stride * row_stride
        layers.pop()  # the last ReLU comes after the sum
        if mimic:
            layers.append(mimic.residual_scale(len(rows), number))
        self.branch = nn.Sequential(*layers)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or in_channels != C:
            self.shortcut = grouping.conv(in_channels, C, 1, stride)
            if mimic:
                self.shortcut = _mimic_shortcut(self.shortcut, mimic, bottleneck=len(rows) == 3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.branch(x) + self.shortcut(x))  # (N, C, H/s, W/s)


def _mimic_shortcut(conv: nn.Module, mimic: MimicNorm, bottleneck: bool) -> nn.Module:
    """The ImageNet code ends it in a scalar; the CIFAR code has none there, and no bias in bottlenecks."""
    if mimic.variant == "code" and mimic.cifar:
        if bottleneck:
            conv.register_parameter("bias", None)
        return conv
    return nn.Sequential(conv, mimic.scale(1)) if mimic.variant == "code" else conv


class ResNet(nn.Module):
    """(N, 3, 224, 224) -> (N, num_classes). `cifar`: 3x3 stem with stride 1 and no max-pool, for 32 px.

    depth: 18 or 50. `mimic` goes with `grouping.norm == "mimic"`.
    """

    def __init__(
        self,
        depth: int,
        *,
        grouping: Grouping,
        num_classes: int = 1000,
        cifar: bool = False,
        mimic: MimicNorm | None = None,
    ) -> None:
        super().__init__()
        C, number = STAGE_WIDTHS[0], 0
        self.stem = grouping.conv(RGB, C, 3 if cifar else 7, 1 if cifar else 2)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.Identity() if cifar else nn.MaxPool2d(3, stride=2, padding=1)
        stages = []
        for index, (width, count) in enumerate(zip(STAGE_WIDTHS, STAGE_BLOCKS[depth])):
            stage = []
            for position in range(count):
                number += 1
                rows = _rows(depth, width, 2 if index > 0 and position == 0 else 1)
                stage.append(_Block(C, rows, grouping, mimic, number))
                C = rows[-1][1]
            stages.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(C, num_classes)
        self.last_bn = mimic.last_norm(num_classes) if mimic else nn.Identity()
        if mimic:
            mimic.initialize(self, fan=lambda conv: math.prod(conv.kernel_size) * conv.in_channels)
        else:
            for module in self.modules():
                if isinstance(module, nn.Conv2d):
                    nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.stem(x)))  # (N, 64, 56, 56)
        x = self.layer2(self.layer1(x))  # (N, 128 e, 28, 28)   e = 4 with bottlenecks, else 1
        x = self.layer4(self.layer3(x))  # (N, 512 e, 7, 7)
        return self.last_bn(self.fc(x.mean((2, 3), keepdim=True).flatten(1)))  # (N, num_classes)


def _rows(depth: int, width: int, stride: int) -> list[tuple[int, int, int]]:
    """(kernel_size, width, stride) of a block's convolutions."""
    if depth == 18:
        return [(3, width, stride), (3, width, 1)]
    return [(1, width, 1), (3, width, stride), (1, 4 * width, 1)]
