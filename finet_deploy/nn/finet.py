"""Finet (Luo et al., arXiv 2005.06828): a light-weight CNN with FBN on its pointwise convolutions.

The block figure cannot be read in the sources at hand and the authors published no code. What is written
here reproduces all twelve parameter counts of the paper's Table 2 exactly; no other reading that was tried
does. The order of ReLU, Squeeze-Excite and identity inside the block is not fixed by those counts: it is
our reading.

Shape letters: N batch, C channels, H and W height and width, G groups of FBN.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from finet_deploy.nn.fbn import FBNConv2d

__all__ = ["DeploySqueezeExcite", "Finet", "FinetBlock", "Grouping", "SqueezeExcite", "round_up"]

STEM_WIDTH = 24
HEAD_WIDTH = 1024
SQUEEZE_WIDTH = 200
STAGE_WIDTHS = {"small": (30, 60, 120), "large": (100, 200, 400)}
STAGE_BLOCKS = (4, 8, 4)  # 1 + 3, 1 + 7, 1 + 3: the first of each stage has stride 2


def round_up(width: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is not below `width`."""
    return -(-width // multiple) * multiple


@dataclass(frozen=True)
class Grouping:
    """How FBN splits its inputs: by a number of groups for all layers, or by channels per group (Table 6)."""

    num_groups: int | None = 4
    channels_per_group: int | None = None
    affine: bool = True

    def width(self, width: int) -> int:
        """Stage widths are rounded up to a multiple of G; given by channels per group they stay (Table 6)."""
        return width if self.num_groups is None else round_up(width, self.num_groups)

    def conv1x1(self, in_channels: int, out_channels: int) -> FBNConv2d:
        return FBNConv2d(
            in_channels,
            out_channels,
            1,
            num_groups=self.num_groups,
            channels_per_group=self.channels_per_group,
            affine=self.affine,
        )


class SqueezeExcite(nn.Module):
    """Squeeze the block's *input* to one gate per output channel, (N, C_in, H, W) -> (N, C_out, 1, 1).

    As the paper has it, with two linear layers; `finet_deploy.fuse` gives it the form of `DeploySqueezeExcite`.
    """

    def __init__(self, in_channels: int, out_channels: int, affine: bool) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_channels, SQUEEZE_WIDTH, bias=False)
        self.bn1 = nn.BatchNorm1d(SQUEEZE_WIDTH, affine=affine)
        self.relu = nn.ReLU(inplace=True)
        self.fc2 = nn.Linear(SQUEEZE_WIDTH, out_channels, bias=False)
        self.bn2 = nn.BatchNorm1d(out_channels, affine=affine)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        s = x.mean((2, 3))  # (N, C_in)
        s = self.relu(self.bn1(self.fc1(s)))  # (N, 200)
        s = self.sigmoid(self.bn2(self.fc2(s)))  # (N, C_out)
        return s.unsqueeze(-1).unsqueeze(-1)  # (N, C_out, 1, 1)


class DeploySqueezeExcite(nn.Module):
    """The same gate with `keepdim` pooling and 1x1 convolutions: the spelling that mobile delegates take whole.

    Spelled with linear layers every gate breaks the graph: 18 XNNPACK delegates for Finet instead of one.
    """

    def __init__(self, squeeze: nn.Conv2d, excite: nn.Conv2d) -> None:
        super().__init__()
        self.squeeze, self.excite = squeeze, excite
        self.relu = nn.ReLU(inplace=True)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        s = x.mean((2, 3), keepdim=True)  # (N, C_in, 1, 1)
        s = self.relu(self.squeeze(s))  # (N, 200, 1, 1)
        return self.sigmoid(self.excite(s))  # (N, C_out, 1, 1)


class FinetBlock(nn.Module):
    """1x1 FBN, ReLU, 3x3 depthwise BN, 1x1 FBN, ReLU; scaled by Squeeze-Excite; plus the identity at stride 1."""

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, grouping: Grouping, se: bool
    ) -> None:
        super().__init__()
        self.conv1 = grouping.conv1x1(in_channels, out_channels)
        self.depthwise = nn.Conv2d(
            out_channels, out_channels, 3, stride, padding=1, groups=out_channels, bias=False
        )
        self.bn = nn.BatchNorm2d(out_channels, affine=grouping.affine)
        self.conv2 = grouping.conv1x1(out_channels, out_channels)
        self.relu = nn.ReLU(inplace=True)
        self.se = SqueezeExcite(in_channels, out_channels, grouping.affine) if se else None
        self.identity = stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.conv1(x))  # (N, C_out, H, W)
        y = self.bn(self.depthwise(y))  # (N, C_out, H/s, W/s)
        y = self.relu(self.conv2(y))  # (N, C_out, H/s, W/s)
        if self.se is not None:
            y = y * self.se(x)
        return x + y if self.identity else y


class Finet(nn.Module):
    """Finet small or large: (N, 3, 224, 224) -> (N, num_classes); CIFAR form: (N, 3, 32, 32).

    `cifar`: stem stride 1 and no max-pool (section 5.3). `dropout` sits before the last layer (section 5.1).
    """

    def __init__(
        self,
        size: str,
        *,
        grouping: Grouping,
        se: bool = False,
        num_classes: int = 1000,
        cifar: bool = False,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        affine = grouping.affine
        C = grouping.width(STEM_WIDTH)
        self.conv1 = nn.Conv2d(3, C, 3, stride=1 if cifar else 2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(C, affine=affine)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.Identity() if cifar else nn.MaxPool2d(3, stride=2, padding=1)
        stages = []
        for width, blocks in zip(STAGE_WIDTHS[size], STAGE_BLOCKS):
            C_out = grouping.width(width)
            first = FinetBlock(C, C_out, 2, grouping, se)
            rest = [FinetBlock(C_out, C_out, 1, grouping, se) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(first, *rest))
            C = C_out
        self.stage2, self.stage3, self.stage4 = stages
        self.conv5 = nn.Conv2d(C, HEAD_WIDTH, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(HEAD_WIDTH, affine=affine)
        self.fc1 = nn.Linear(HEAD_WIDTH, HEAD_WIDTH, bias=False)
        self.bn_fc1 = nn.BatchNorm1d(HEAD_WIDTH, affine=affine)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(HEAD_WIDTH, num_classes)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialization (fan-out) for convolutions, N(0, 0.01) for the last layer, as torchvision's mobile nets."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        nn.init.normal_(self.fc2.weight, 0.0, 0.01)
        nn.init.zeros_(self.fc2.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.relu(self.bn1(self.conv1(x))))  # (N, 24, 56, 56)
        x = self.stage2(x)  # (N, C2, 28, 28)
        x = self.stage3(x)  # (N, C3, 14, 14)
        x = self.stage4(x)  # (N, C4, 7, 7)
        x = self.relu(self.bn5(self.conv5(x)))  # (N, 1024, 7, 7)
        x = x.mean((2, 3), keepdim=True).flatten(1)  # (N, 1024)
        x = self.relu(self.bn_fc1(self.fc1(x)))  # (N, 1024)
        return self.fc2(self.dropout(x))  # (N, num_classes)
