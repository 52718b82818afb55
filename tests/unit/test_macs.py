"""Multiply-adds of the fused networks at 224 px, with G = 1: what the paper's Table 2 prints, and one layer more."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from finet_deploy.export import count_macs
from finet_deploy.fuse import fuse
from finet_deploy.zoo import create_model

IMAGE = (1, 3, 224, 224)


@pytest.mark.parametrize(
    ("name", "se", "millions"),
    [
        ("finet_small", False, 43.67),
        ("finet_small", True, 44.08),
        ("finet_large", False, 302.87),
        ("finet_large", True, 304.23),
    ],
)
def test_finet_has_the_papers_multiply_adds(name: str, se: bool, millions: float) -> None:
    model = fuse(create_model(name, num_groups=1, se=se, seed=0).eval())
    assert round(count_macs(model, IMAGE) / 1e6, 2) == millions


@pytest.mark.parametrize("num_groups", [1, 2, 4])
def test_fusing_changes_no_multiply_add(num_groups: int) -> None:
    model = create_model("finet_small", num_groups=num_groups, seed=0, cifar=True).eval()
    assert count_macs(model, (1, 3, 32, 32)) == count_macs(fuse(model), (1, 3, 32, 32))


def test_by_hand_on_one_convolution_and_one_linear_layer() -> None:
    model = nn.Sequential(nn.Conv2d(4, 6, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 6 * 6, 10))
    by_hand = 6 * 6 * 6 * (4 // 2) * 9 + 216 * 10  # output elements times inputs of each
    assert count_macs(model, (1, 4, 8, 8)) == by_hand
    assert count_macs(model, (2, 4, 8, 8)) == 2 * by_hand
    assert not torch.is_inference_mode_enabled()
