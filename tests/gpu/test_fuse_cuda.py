"""Fusing keeps a network on its device."""

from __future__ import annotations

import pytest
import torch

from finet_deploy.fuse import fuse
from finet_deploy.zoo import create_model
from tests.helpers import randomize_statistics

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available(), reason="needs a CUDA device, and this machine has none"
    ),
]


def test_a_network_on_cuda_is_fused_on_cuda_and_stays_the_same_function():
    model = create_model("finet_small", se=True, num_classes=10, seed=0).double()
    randomize_statistics(model, 0)
    model.cuda().eval()
    x = torch.randn(2, 3, 64, 64, dtype=torch.float64, device="cuda")
    fused = fuse(model)
    assert {p.device.type for p in fused.parameters()} == {"cuda"}
    with torch.no_grad():
        expected, found = model(x), fused(x)
    assert (found - expected).norm() / expected.norm() <= 1e-12
