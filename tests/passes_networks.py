"""Small networks with everything that the deploy passes look for, in random sizes, orders and spellings."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

__all__ = ["ALL_PARTS", "NEEDS", "Everything", "Layout", "example_inputs", "layouts"]


class Residual(nn.Module):
    """1x1, ReLU, depthwise 3x3, 1x1, ReLU, plus the identity: Finet's block."""

    def __init__(self, width: int, spelling: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(width, width + 3, 1)
        self.depthwise = nn.Conv2d(width + 3, width + 3, 3, padding=1, groups=width + 3)
        self.project = nn.Conv2d(width + 3, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.relu(self.project(self.depthwise(F.relu(self.expand(x)))))


class LinearGate(nn.Module):
    """Squeeze-Excite spelled with linear layers."""

    def __init__(self, width: int, spelling: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Linear(width, 5), nn.Linear(5, width, bias=spelling != 1)
        self.spelling = spelling

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(averaged(x, self.spelling)))))
        return x * gate[:, :, None, None]


class HardGate(nn.Module):
    """Squeeze-Excite as MobileNetV3 has it."""

    def __init__(self, width: int, spelling: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze, self.excite = nn.Conv2d(width, 5, 1), nn.Conv2d(5, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.excite(F.relu(self.squeeze(self.pool(x))))) + F.hardsigmoid(x)


class Scaled(nn.Module):
    """A number and a value per channel on a convolution, from constants that have to be computed first."""

    def __init__(self, width: int, spelling: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.register_buffer("scale", torch.rand(1, width, 1, 1) + 0.5)
        self.register_buffer("shift", torch.randn(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.hardswish((self.conv(x) * 1.5 - self.shift) / (self.scale + 1.0) + 0.25)


class Shuffle(nn.Module):
    """ShuffleNetV2's unit: split, one half through convolutions, concatenated, shuffled.

    spelling: 0 as torchvision has it, 1 by a permutation, 2 by a permutation and in as many groups as there can be.
    """

    def __init__(self, width: int, spelling: int) -> None:
        super().__init__()
        half = -(-width // 2)
        self.spelling, self.groups = spelling, half if spelling == 2 else 2
        self.widen = nn.Conv2d(width, 2 * half, 1)
        self.units = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(half, half, 1), nn.ReLU(), nn.Conv2d(half, half, 3, padding=1, groups=half),
                nn.Conv2d(half, half, 1), nn.ReLU(),
            )
            for _ in range(3)
        )  # fmt: skip
        self.depthwise = nn.Conv2d(2 * half, 2 * half, 3, padding=1, groups=2 * half)
        self.narrow = nn.Conv2d(2 * half, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.widen(x)
        for unit in self.units:
            left, right = x.chunk(2, dim=1)
            x = torch.cat((left, unit(right)), dim=1)
            N, C, H, W = x.shape
            x = x.view(N, self.groups, C // self.groups, H, W)
            x = x.permute(0, 2, 1, 3, 4) if self.spelling else x.transpose(1, 2)
            x = x.contiguous().view(N, C, H, W)
        return self.narrow(F.relu(self.depthwise(x)))


class Idle(nn.Module):
    """What does nothing, and a split whose parts change places."""

    def __init__(self, width: int, spelling: int) -> None:
        super().__init__()
        self.conv, self.dropout = nn.Conv2d(width, width, 1), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        first, second = torch.split(x, [1, x.shape[1] - 1], dim=1)
        x = torch.cat((second, first), dim=1)
        return F.relu(F.relu(self.conv(self.dropout(x).reshape(x.shape)[:, :, : x.shape[2]])))


def averaged(x: Tensor, spelling: int) -> Tensor:
    """(N, C, H, W) -> (N, C), in one of three ways of saying it."""
    if spelling == 1:
        return F.adaptive_avg_pool2d(x, 1).flatten(1)
    return F.avg_pool2d(x, (x.shape[2], x.shape[3])).flatten(1) if spelling == 2 else x.mean((2, 3))


SPELLINGS = 3
PARTS: dict[str, Callable[[int, int], nn.Module]] = {
    "residual": Residual, "linear gate": LinearGate, "hard gate": HardGate, "scaled": Scaled, "shuffle": Shuffle,
    "idle": Idle,
}  # fmt: skip
ALL_PARTS = tuple(PARTS)
# What a network must have for a pass to find something, and the passes that must have run before.
NEEDS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "fold-constants": (("scaled",), ()),
    "remove-idle": (("idle",), ()),
    "fold-standardization": ((), ()),
    "fold-affine": (("scaled",), ("fold-constants",)),
    "pooling": ((), ()),
    "gates-as-convolutions": (("linear gate",), ("remove-idle", "pooling")),
    "hard-sigmoid": (("hard gate",), ()),
    "split-to-slices": (("idle",), ()),
    "channel-shuffle": (("shuffle",), ("remove-idle", "split-to-slices")),
    "pad-channels": (("residual",), ()),
    "split-pixels": ((), ()),
}
# parts, width, padding of the stem, spelling, height, width of the picture
Layout = tuple[tuple[str, ...], int, int, int, int, int]


class Everything(nn.Module):
    """(1, 3, H, W) -> (1, 7): standardization, a stem, parts, a wide pointwise convolution, pooling, linear layers.

    padding: of the stem, 0 or 1. spelling: below SPELLINGS, of parts that can be said in several ways.
    """

    def __init__(self, parts: tuple[str, ...], width: int, padding: int = 1, spelling: int = 0) -> None:
        super().__init__()
        self.register_buffer("mean", torch.randn(1, 3, 1, 1))
        self.register_buffer("std", torch.rand(1, 3, 1, 1) + 0.5)
        self.stem = nn.Conv2d(3, width, 1 + 2 * padding, padding=padding)
        self.parts = nn.ModuleList(PARTS[name](width, spelling) for name in parts)
        self.head = nn.Conv2d(width, 40, 1)
        self.fc1, self.fc2 = nn.Linear(40, 9), nn.Linear(9, 7)
        self.spelling = spelling
        for module in self.modules():  # so that outputs depend on inputs through all of them
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem((x - self.mean) / self.std)
        for part in self.parts:
            x = part(x)
        return self.fc2(F.relu(self.fc1(averaged(F.relu(self.head(x)), self.spelling))))


def layouts(parts: st.SearchStrategy[tuple[str, ...]] | None = None) -> st.SearchStrategy[Layout]:
    """Any spelling; widths and sides that fill no tile. parts: by default one to three in any order."""
    if parts is None:
        parts = st.lists(st.sampled_from(ALL_PARTS), min_size=1, max_size=3).map(tuple)
    sides = st.integers(2, 9)
    return st.tuples(
        parts, st.integers(3, 30), st.integers(0, 1), st.integers(0, SPELLINGS - 1), sides, sides
    )


def example_inputs(height: int, width: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {name: torch.randn(1, 3, height, width, generator=generator) for name in ("first", "second")}
