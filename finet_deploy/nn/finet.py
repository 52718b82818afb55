"""Finet (Luo et al., arXiv 2005.06828): a light-weight CNN with FBN on its pointwise convolutions.

The block figure cannot be read in the sources at hand and the authors published no code. What is written
here reproduces all twelve parameter counts of the paper's Table 2 exactly; no other reading that was tried
does. The order of ReLU, Squeeze-Excite and identity inside the block is not fixed by those counts: it is
our reading.

Beside FBN the same network comes with plain BN, and with MimicNorm, which nobody has published for it. Ours follows
what MimicNorm's code does for its closest nets, MobileNetV2 and ShuffleNetV2: no norm inside, also not in
Squeeze-Excite and after FC1; a bias on every layer; a scalar before the last ReLU of a block, where it can be folded
whatever its sign; one before conv5's ReLU; the last BN on the logits.

Shape letters: N batch, C channels, H and W height and width, G groups of FBN.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn

from finet_deploy.nn.fbn import FBNConv2d
from finet_deploy.nn.mimicnorm import MimicNorm

__all__ = ["DeploySqueezeExcite", "Finet", "FinetBlock", "Grouping", "SqueezeExcite", "round_up"]

RGB = 3
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
    """How a network is normalized: FBN by a number of groups or by channels per group (Table 6), BN or MimicNorm.

    norm: "fbn", "bn" or "mimic". With the last two the number of groups only rounds the widths.
    """

    num_groups: int | None = 4
    channels_per_group: int | None = None
    affine: bool = True
    norm: str = "fbn"

    @property
    def bias(self) -> bool:
        """Whether layers have a bias: only where no norm follows them."""
        return self.norm == "mimic"

    def width(self, width: int) -> int:
        """Stage widths are rounded up to a multiple of G; given by channels per group they stay (Table 6)."""
        return width if self.num_groups is None else round_up(width, self.num_groups)

    def conv(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1) -> nn.Module:
        """A convolution with its normalization: FBN, BN (the same keys as FBN's: conv, bn), or none (MimicNorm)."""
        padding = kernel_size // 2
        if self.norm != "fbn":
            plain = nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=self.bias)
            if self.norm == "mimic":
                return plain
            return nn.Sequential(OrderedDict(conv=plain, bn=self.batch_norm(out_channels)))
        return FBNConv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            # The RGB stem has three inputs, which G does not divide: it keeps conv + BN, that is G = 1.
            num_groups=1 if self.num_groups is not None and in_channels == RGB else self.num_groups,
            channels_per_group=self.channels_per_group,
            affine=self.affine,
        )

    def batch_norm(self, channels: int) -> nn.Module:
        """(N, C, H, W) -> the same."""
        return nn.Identity() if self.norm == "mimic" else nn.BatchNorm2d(channels, affine=self.affine)

    def batch_norm1d(self, features: int) -> nn.Module:
        """(N, C) -> the same."""
        return nn.Identity() if self.norm == "mimic" else nn.BatchNorm1d(features, affine=self.affine)


class SqueezeExcite(nn.Module):
    """Squeeze the block's *input* to one gate per output channel, (N, C_in, H, W) -> (N, C_out, 1, 1).

    As the paper has it, with two linear layers; `finet_deploy.fuse` gives it the form of `DeploySqueezeExcite`.
    """

    def __init__(self, in_channels: int, out_channels: int, grouping: Grouping) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_channels, SQUEEZE_WIDTH, bias=grouping.bias)
        self.bn1 = grouping.batch_norm1d(SQUEEZE_WIDTH)
        self.relu = nn.ReLU(inplace=True)
        self.fc2 = nn.Linear(SQUEEZE_WIDTH, out_channels, bias=grouping.bias)
        self.bn2 = grouping.batch_norm1d(out_channels)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        s = x.mean((2, 3))  # (N, C_in)
        s = self.relu(self.bn1(self.fc1(s)))  # (N, 200)
        s = self.sigmoid(self.bn2(self.fc2(s)))  # (N, C_out)
        return s.unsqueeze(-1).unsqueeze(-1)  # (N, C_out, 1, 1)


class DeploySqueezeExcite(nn.Module):
    """The same gate with `keepdim` pooling and 1x1 convolutions: the spelling that mobile delegates take whole.

    Spelled with linear layers every gate breaks the graph: 17 XNNPACK delegates for Finet-large instead of one.
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
    """1x1 FBN, ReLU, 3x3 depthwise BN, 1x1 FBN, ReLU; scaled by Squeeze-Excite; plus the identity at stride 1.

    scale: MimicNorm's scalar, the identity otherwise.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        grouping: Grouping,
        se: bool,
        scale: nn.Module,
    ) -> None:
        super().__init__()
        self.conv1 = grouping.conv(in_channels, out_channels, 1)
        self.depthwise = nn.Conv2d(
            out_channels, out_channels, 3, stride, padding=1, groups=out_channels, bias=grouping.bias
        )
        self.bn = grouping.batch_norm(out_channels)
        self.conv2 = grouping.conv(out_channels, out_channels, 1)
        self.scale = scale
        self.relu = nn.ReLU(inplace=True)
        self.se = SqueezeExcite(in_channels, out_channels, grouping) if se else None
        self.identity = stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.conv1(x))  # (N, C_out, H, W)
        y = self.bn(self.depthwise(y))  # (N, C_out, H/s, W/s)
        y = self.relu(self.scale(self.conv2(y)))  # (N, C_out, H/s, W/s)
        if self.se is not None:
            y = y * self.se(x)
        return x + y if self.identity else y


class Finet(nn.Module):
    """Finet small or large: (N, 3, 224, 224) -> (N, num_classes); CIFAR form: (N, 3, 32, 32).

    `cifar`: stem stride 1 and no max-pool (section 5.3). `dropout` sits before the last layer (section 5.1).
    `mimic` goes with `grouping.norm == "mimic"`.
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
        mimic: MimicNorm | None = None,
    ) -> None:
        super().__init__()
        C = grouping.width(STEM_WIDTH)
        self.conv1 = nn.Conv2d(RGB, C, 3, stride=1 if cifar else 2, padding=1, bias=grouping.bias)
        self.bn1 = grouping.batch_norm(C)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.Identity() if cifar else nn.MaxPool2d(3, stride=2, padding=1)
        stages, number = [], 0
        for width, blocks in zip(STAGE_WIDTHS[size], STAGE_BLOCKS):
            C_out = grouping.width(width)
            stage = [FinetBlock(C, C_out, 2, grouping, se, _scale(mimic, 2))]
            for _ in range(blocks - 1):
                number += 1
                stage.append(FinetBlock(C_out, C_out, 1, grouping, se, _residual_scale(mimic, 2, number)))
            stages.append(nn.Sequential(*stage))
            C = C_out
        self.stage2, self.stage3, self.stage4 = stages
        self.conv5 = nn.Conv2d(C, HEAD_WIDTH, 1, bias=grouping.bias)
        self.bn5 = _scale(mimic, 1) if mimic else grouping.batch_norm(HEAD_WIDTH)
        self.fc1 = nn.Linear(HEAD_WIDTH, HEAD_WIDTH, bias=grouping.bias)
        self.bn_fc1 = grouping.batch_norm1d(HEAD_WIDTH)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(HEAD_WIDTH, num_classes)
        self.last_bn = mimic.last_norm(num_classes) if mimic else nn.Identity()
        if mimic:
            mimic.initialize(self)
        else:
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
        return self.last_bn(self.fc2(self.dropout(x)))  # (N, num_classes)


def _scale(mimic: MimicNorm | None, layers: int) -> nn.Module:
    """Where MobileNetV2's code has 1.2^2 for a branch without identity; the paper speaks of residual branches alone."""
    return mimic.scale(layers) if mimic else nn.Identity()


def _residual_scale(mimic: MimicNorm | None, layers: int, number: int) -> nn.Module:
    """Blocks with identity alone are counted, as in MobileNetV2's code."""
    return mimic.residual_scale(layers, number) if mimic else nn.Identity()
