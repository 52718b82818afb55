"""Small networks and wrong fuses for the tests of `verify`."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from finet_deploy.fuse import fuse
from finet_deploy.nn import FBNConv2d
from finet_deploy.verify import Certificate
from tests.helpers import randomize_statistics

Broken = Callable[[nn.Module], nn.Module]


class PlainNet(nn.Module):
    """conv + BN three times (dense, depthwise, pointwise), one of them residual, then a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.bn_stem = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)
        self.body = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(inplace=True),
            nn.Conv2d(8, 8, 1, bias=False),
            nn.BatchNorm2d(8),
        )
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn_stem(self.stem(x)))
        x = self.relu(x + self.body(x))
        return self.head(x.mean((2, 3)))


class FBNNet(nn.Module):
    """The same with FBN: two grouped convolutions, a residual one among them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = FBNConv2d(3, 8, 3, stride=2, padding=1, num_groups=3)
        self.relu = nn.ReLU(inplace=True)
        self.block = FBNConv2d(8, 8, 1, num_groups=4)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.stem(x))
        x = self.relu(x + self.block(x))
        return self.head(x.mean((2, 3)))


NETS: dict[str, Callable[[], nn.Module]] = {"plain": PlainNet, "fbn": FBNNet}
LAYER = {"plain": "stem", "fbn": "block"}  # the layer that the weight breaks below are made in


def make(kind: str, seed: int = 0) -> nn.Module:
    """A network in eval mode whose statistics a fold can get wrong."""
    torch.manual_seed(seed)
    return randomize_statistics(NETS[kind](), seed).eval()


def make_inputs(size: int = 12, count: int = 3) -> dict[str, Tensor]:
    """Noise, smooth images and the extremes, (1, 3, size, size) each."""
    generator = torch.Generator().manual_seed(1)
    inputs = {f"noise_{i}": torch.randn(1, 3, size, size, generator=generator) for i in range(count)}
    coarse = torch.randn(1, 3, 3, 3, generator=generator)
    inputs["smooth"] = nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    inputs["zeros"] = torch.zeros(1, 3, size, size)
    inputs["large"] = 1e3 * torch.randn(1, 3, size, size, generator=generator)
    inputs["denormal"] = 1e-39 * torch.randn(1, 3, size, size, generator=generator)
    return inputs


def failed(certificate: Certificate) -> set[str]:
    """Names of the checks that did not pass."""
    return {check.name for check in certificate.failures}


def _in_layer(change: Callable[[nn.Module], None]) -> Broken:
    """`fuse` with a fault in one layer of the fused network."""

    def broken(model: nn.Module) -> nn.Module:
        kind = "fbn" if isinstance(model, FBNNet) else "plain"
        fused = fuse(model)
        with torch.no_grad():
            change(fused.get_submodule(LAYER[kind]))
        return fused

    return broken


def _zero_kernel(layer: nn.Module) -> None:
    layer.get_parameter("weight")[3].zero_()


def _drop_bias(layer: nn.Module) -> None:
    layer.get_parameter("bias").zero_()


def _swap_groups(layer: nn.Module) -> None:
    weight = layer.get_parameter("weight")
    width = 2 if weight.shape[1] >= 4 else 1
    weight[:, : 2 * width] = weight[:, : 2 * width].roll(width, dims=1)


def _with_norms(change: Callable[[nn.Module], None]) -> Broken:
    """`fuse` that folds other statistics than the model has."""

    def broken(model: nn.Module) -> nn.Module:
        wrong = copy.deepcopy(model)
        for module in wrong.modules():
            if isinstance(module, nn.BatchNorm2d):
                change(module)
        return fuse(wrong)

    return broken


def _ignore_eps(norm: nn.Module) -> None:
    norm.eps = 0.0  # type: ignore[assignment]


def _flip_mean(norm: nn.Module) -> None:
    norm.get_buffer("running_mean").neg_()


BROKEN_FUSES: dict[str, Broken] = {
    "zeroed_kernel": _in_layer(_zero_kernel),
    "dropped_bias": _in_layer(_drop_bias),
    "swapped_groups": _in_layer(_swap_groups),
    "ignored_eps": _with_norms(_ignore_eps),
    "flipped_mean": _with_norms(_flip_mean),
}


def first_broken_module(kind: str, broken: str) -> str:
    """Where each of BROKEN_FUSES departs first: faults of statistics already do in the first normalized layer."""
    return LAYER[kind] if broken in ("zeroed_kernel", "dropped_bias", "swapped_groups") else "stem"
