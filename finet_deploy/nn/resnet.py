"""ResNet18 and ResNet50 with FBN on their convolutions (the Finet paper's Table 7).

The nets are torchvision's (He et al., arXiv 1512.03385); every pair of convolution and batch norm becomes one
FBN convolution. The stem has three inputs, which G does not divide: it keeps conv + BN, that is G = 1.
"""

from __future__ import annotations

from torch import Tensor, nn

from finet_deploy.nn.fbn import FBNConv2d
from finet_deploy.nn.finet import Grouping

__all__ = ["ResNetFBN"]

RGB = 3  # the stem's inputs: FBN with G = 1 is conv + BN
STAGE_WIDTHS = (64, 128, 256, 512)


def _fbn(in_channels: int, out_channels: int, kernel_size: int, stride: int, grouping: Grouping) -> FBNConv2d:
    num_groups, channels_per_group = grouping.num_groups, grouping.channels_per_group
    if num_groups is not None and in_channels == RGB:
        num_groups = 1
    return FBNConv2d(
        in_channels,
        out_channels,
        kernel_size,
        stride,
        padding=kernel_size // 2,
        num_groups=num_groups,
        channels_per_group=channels_per_group,
        affine=grouping.affine,
    )


class _Block(nn.Module):
    """A residual block from (kernel_size, width, stride) rows: two 3x3 (basic), or 1x1, 3x3, 1x1 (bottleneck)."""

    def __init__(self, in_channels: int, rows: list[tuple[int, int, int]], grouping: Grouping) -> None:
        super().__init__()
        C, stride = in_channels, 1
        layers: list[nn.Module] = []
        for kernel_size, width, row_stride in rows:
            layers += [_fbn(C, width, kernel_size, row_stride, grouping), nn.ReLU(inplace=True)]
            C, stride = width, stride * row_stride
        self.branch = nn.Sequential(*layers[:-1])  # the last ReLU comes after the sum
        same = stride == 1 and in_channels == C
        self.shortcut = nn.Identity() if same else _fbn(in_channels, C, 1, stride, grouping)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.branch(x) + self.shortcut(x))  # (N, C, H/s, W/s)


class ResNetFBN(nn.Module):
    """(N, 3, 224, 224) -> (N, num_classes). `cifar`: 3x3 stem with stride 1 and no max-pool, for 32 px."""

    def __init__(
        self, blocks: tuple[int, ...], *, bottleneck: bool, grouping: Grouping, num_classes: int, cifar: bool
    ) -> None:
        super().__init__()
        C = STAGE_WIDTHS[0]
        self.stem = _fbn(RGB, C, 3 if cifar else 7, 1 if cifar else 2, grouping)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.Identity() if cifar else nn.MaxPool2d(3, stride=2, padding=1)
        stages = []
        for index, (width, count) in enumerate(zip(STAGE_WIDTHS, blocks)):
            stage = []
            for position in range(count):
                stride = 2 if index > 0 and position == 0 else 1
                if bottleneck:
                    rows = [(1, width, 1), (3, width, stride), (1, 4 * width, 1)]
                else:
                    rows = [(3, width, stride), (3, width, 1)]
                stage.append(_Block(C, rows, grouping))
                C = rows[-1][1]
            stages.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(C, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.stem(x)))  # (N, 64, 56, 56)
        x = self.layer2(self.layer1(x))  # (N, 128 e, 28, 28)   e = 4 with bottlenecks, else 1
        x = self.layer4(self.layer3(x))  # (N, 512 e, 7, 7)
        return self.fc(x.mean((2, 3), keepdim=True).flatten(1))  # (N, num_classes)
