"""What is left out of the lowering to XNNPACK changes nothing: the same bytes with it and without it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from executorch.backends.xnnpack import _passes
from torch import Tensor, nn

from finet_deploy.export import executorch
from finet_deploy.export.exported import Exported, trace_program
from finet_deploy.export.xnnpack_passes import WORKS_ON
from tests.export.conftest import TinyNet, well_conditioned


class Attention(nn.Module):
    """(1, 3, 16, 16) -> (1, 1, 16, 16), with a mask of two axes, as XNNPACK's pattern has it."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.zeros(16, 16))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = x[:, :1], x[:, 1:2], x[:, 2:]
        return F.scaled_dot_product_attention(query, key, value, attn_mask=self.mask)


class Mixed(nn.Module):
    """(1, 3, 16, 16) -> (1, 16, 16, 16): what the other passes work on."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn, self.alone = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.BatchNorm2d(3)
        self.prelu, self.pool = nn.PReLU(4), nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.prelu(self.bn(self.conv(x)))
        wide = F.interpolate(self.pool(y), scale_factor=2.0, mode="bilinear", align_corners=False)
        largest = x.max(2, keepdim=True).values.expand(-1, -1, 16, -1)
        return torch.cat([y, wide, self.alone(x), x[:, :1], x[:, 1:2], largest], 1)


def lowered(model: nn.Module) -> Exported:
    torch.manual_seed(0)
    return executorch.to_pte(trace_program(model.eval(), torch.randn(1, 3, 16, 16)))


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(Attention, marks=pytest.mark.thorough),
        Mixed,
        pytest.param(lambda: well_conditioned(TinyNet()), marks=pytest.mark.thorough, id="TinyNet"),
    ],
)
def test_the_file_is_the_same_as_with_every_pass(network, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    model = network()
    found = lowered(model)

    @contextlib.contextmanager
    def every_pass() -> Iterator[None]:
        yield

    monkeypatch.setattr(executorch, "without_idle_passes", every_pass)
    expected = lowered(model)
    assert found == expected


def test_each_of_these_passes_is_one_of_xnnpacks() -> None:
    own = vars(_passes)
    assert [name for name in WORKS_ON if name not in own] == []
    assert all(item.__module__.startswith("executorch.") for name, item in own.items() if name in WORKS_ON)
