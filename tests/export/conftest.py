"""Networks that are small enough to export many times, and one bundle that tests copy and damage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from finet_deploy.export import Bundle, export
from finet_deploy.nn import FBNConv2d


class TinyNet(nn.Module):
    """(1, 3, 16, 16) -> (1, 5): one FBN convolution, a depthwise one with batch norm, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = FBNConv2d(3, 8, 3, stride=2, padding=1, num_groups=3)
        self.relu = nn.ReLU()
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.depthwise(self.relu(self.conv1(x)))))
        return self.fc(x.mean((2, 3), keepdim=True).flatten(1))


def well_conditioned(model: nn.Module, seed: int = 0) -> nn.Module:
    """`model` in eval mode with seeded running statistics and affine values that change what it computes."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0.0, 0.2, generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
            if module.affine:
                nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
                nn.init.normal_(module.bias, 0.0, 0.2, generator=generator)
    return model.eval()


def noise_inputs(size: int, count: int = 3) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {f"noise_{i}": torch.randn(1, 3, size, size, generator=generator) for i in range(count)}


@pytest.fixture
def tiny_model() -> nn.Module:
    torch.manual_seed(0)
    return well_conditioned(TinyNet())


@pytest.fixture
def tiny_inputs() -> dict[str, Tensor]:
    return noise_inputs(16)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle with all three formats. Never change it: copy it with `bundle_copy`."""
    torch.manual_seed(0)
    return export(
        well_conditioned(TinyNet()), tmp_path_factory.mktemp("bundles") / "tiny", inputs=noise_inputs(16)
    )


@pytest.fixture
def bundle_copy(pristine: Bundle, tmp_path: Path) -> Callable[[], Path]:
    def copy() -> Path:
        return Path(shutil.copytree(pristine.path, tmp_path / "tiny"))

    return copy
