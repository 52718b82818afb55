"""VGG11 and VGG16 (Simonyan & Zisserman, arXiv 1409.1556) with BN or MimicNorm, as MimicNorm's code has them."""

from __future__ import annotations

import math

from torch import Tensor, nn

from finet_deploy.nn.conv_bn import conv_bn, initialize_network
from finet_deploy.nn.mimicnorm import MimicNorm

__all__ = ["VGG"]

# Widths of the convolutions of each stage; a 2x2 max-pool ends it.
STAGES = {
    11: ((64,), (128,), (256, 256), (512, 512), (512, 512)),
    16: ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512)),
}
HIDDEN = 4096
CODE_GAIN = 2.8


class VGG(nn.Module):
    """(N, 3, 224, 224) -> (N, num_classes); `cifar`: (N, 3, 32, 32), whose head starts at one position.

    depth: 11 or 16. dropout stands after both hidden layers of the head.
    """

    def __init__(
        self,
        depth: int,
        *,
        num_classes: int = 1000,
        cifar: bool = False,
        dropout: float = 0.5,
        mimic: MimicNorm | None = None,
    ) -> None:
        super().__init__()
        C = 3
        layers: list[nn.Module] = []
        for widths in STAGES[depth]:
            for width in widths:
                layers += conv_bn(C, width, 3, mimic)
                C = width
            layers.append(nn.MaxPool2d(2, 2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Sequential(
            nn.Linear(C if cifar else C * 7 * 7, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(HIDDEN, num_classes),
        )
        self.last_bn = mimic.last_norm(num_classes) if mimic else nn.Identity()
        if mimic and not cifar:  # the ImageNet code takes the fan-out
            mimic.initialize(
                self, gain=CODE_GAIN, fan=lambda conv: math.prod(conv.kernel_size) * conv.out_channels
            )
        elif mimic:
            mimic.initialize(
                self, gain=CODE_GAIN, fan=lambda conv: math.prod(conv.kernel_size) * conv.in_channels
            )
        else:
            initialize_network(self, None, 2.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)  # (N, 512, 7, 7), or (N, 512, 1, 1) for 32 px
        return self.last_bn(self.classifier(x.flatten(1)))  # (N, num_classes)
