"""Small networks with everything that the deploy passes look for, in random sizes and orders."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from hypothesis import strategies as st
from torch import Tensor, nn

__all__ = ["ALL_PARTS", "Everything", "Layout", "example_inputs", "layouts"]


class Residual(nn.Module):
    """1x1, ReLU, depthwise 3x3, 1x1, ReLU, plus the identity: Finet's block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.expand = nn.Conv2d(width, width + 3, 1)
        self.depthwise = nn.Conv2d(width + 3, width + 3, 3, padding=1, groups=width + 3)
        self.project = nn.Conv2d(width + 3, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.relu(self.project(self.depthwise(F.relu(self.expand(x)))))


class LinearGate(nn.Module):
    """Squeeze-Excite spelled with linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Linear(width, 5), nn.Linear(5, width)

    def forward(self, x: Tensor) -> Tensor:
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        return x * gate[:, :, None, None]


class HardGate(nn.Module):
    """Squeeze-Excite as MobileNetV3 has it."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.squeeze, self.excite = nn.Conv2d(width, 5, 1), nn.Conv2d(5, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.excite(F.relu(self.squeeze(self.pool(x))))) + F.hardsigmoid(x)


class Scaled(nn.Module):
    """A number and a value per channel on a convolution, from constants that have to be computed first."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.register_buffer("scale", torch.rand(1, width, 1, 1) + 0.5)
        self.register_buffer("shift", torch.randn(width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return F.hardswish((self.conv(x) * 1.5 - self.shift) / (self.scale + 1.0) + 0.25)


class Shuffle(nn.Module):
    """ShuffleNetV2's unit twice: split, one half through convolutions, concatenated, shuffled."""

    def __init__(self, width: int) -> None:
        super().__init__()
        half = -(-width // 2)
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
            x = x.view(N, 2, C // 2, H, W).transpose(1, 2).contiguous().view(N, C, H, W)
        return self.narrow(F.relu(self.depthwise(x)))


class Idle(nn.Module):
    """What does nothing, and a split whose parts change places."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.dropout = nn.Conv2d(width, width, 1), nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        first, second = torch.split(x, [1, x.shape[1] - 1], dim=1)
        x = torch.cat((second, first), dim=1)
        return F.relu(F.relu(self.conv(self.dropout(x).reshape(x.shape)[:, :, : x.shape[2]])))


PARTS: dict[str, Callable[[int], nn.Module]] = {
    "residual": Residual, "linear gate": LinearGate, "hard gate": HardGate, "scaled": Scaled, "shuffle": Shuffle,
    "idle": Idle,
}  # fmt: skip
ALL_PARTS = tuple(PARTS)
Layout = tuple[tuple[str, ...], int, int, int, int]


class Everything(nn.Module):
    """(1, 3, H, W) -> (1, 7): standardization, a stem, parts, a wide pointwise convolution, pooling, two linear layers.

    padding: of the stem, 0 or 1.
    """

    def __init__(self, parts: tuple[str, ...], width: int, padding: int = 1) -> None:
        super().__init__()
        self.register_buffer("mean", torch.randn(1, 3, 1, 1))
        self.register_buffer("std", torch.rand(1, 3, 1, 1) + 0.5)
        self.stem = nn.Conv2d(3, width, 1 + 2 * padding, padding=padding)
        self.parts = nn.ModuleList(PARTS[name](width) for name in parts)
        self.head = nn.Conv2d(width, 40, 1)
        self.fc1, self.fc2 = nn.Linear(40, 9), nn.Linear(9, 7)
        for module in self.modules():  # so that outputs depend on inputs through all of them
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem((x - self.mean) / self.std)
        for part in self.parts:
            x = part(x)
        return self.fc2(F.relu(self.fc1(F.relu(self.head(x)).mean((2, 3)))))


def layouts() -> st.SearchStrategy[Layout]:
    """Up to three parts in any order; widths and sides that fill no tile."""
    parts = st.lists(st.sampled_from(ALL_PARTS), min_size=1, max_size=3).map(tuple)
    return st.tuples(parts, st.integers(3, 30), st.integers(0, 1), st.integers(2, 9), st.integers(2, 9))


def example_inputs(height: int, width: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(7)
    return {name: torch.randn(1, 3, height, width, generator=generator) for name in ("first", "second")}
