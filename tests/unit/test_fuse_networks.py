"""Whole networks: no normalization left, and the same function in fp64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from finet_deploy.fuse import count_normalization, fuse
from finet_deploy.nn.fbn import FBNConv2d
from finet_deploy.zoo import create_model
from tests.helpers import randomize_statistics, relative_error

OURS = {
    "finet_small": {"num_groups": 4, "se": False},
    "finet_small with SE": {"num_groups": 2, "se": True},
    "finet_small without affine": {"num_groups": 8, "se": True, "affine": False},
    "finet_small for CIFAR, by channels per group": {"channels_per_group": 12, "cifar": True},
    "resnet18_fbn": {"num_groups": 4},
}
PEERS = ["shufflenet_v2_x1_5", "mobilenet_v2", "mobilenet_v3_large", "mnasnet1_0", "resnet18"]


def check_whole(model: nn.Module, side: int) -> nn.Module:
    torch.manual_seed(0)
    randomize_statistics(model.double(), 0).eval()
    fused = fuse(model)
    x = torch.randn(2, 3, side, side - 3, dtype=torch.float64)
    with torch.no_grad():
        truth = model(x)
        assert relative_error(fused(x), truth) <= 1e-12
        # The check itself can fail: another input gives another output.
        assert relative_error(model(x.flip(0)), truth) > 1e-3
    assert count_normalization(model) and count_normalization(fused) == {}
    assert fused.fuse_report.kept == () and fused.fuse_report.normalization_left == 0
    assert len(fused.fuse_report.folded) == len(count_normalization(model))
    return fused


@pytest.mark.parametrize("case", OURS)
def test_our_networks_fuse_completely(case):
    fused = check_whole(create_model(case.split()[0], num_classes=10, seed=0, **OURS[case]), 64)
    assert not any(isinstance(module, FBNConv2d) for module in fused.modules())


@pytest.mark.parametrize("name", PEERS)
def test_the_peers_of_torchvision_fuse_completely(name):
    check_whole(create_model(f"torchvision:{name}", num_classes=10, seed=0), 64)


def test_squeeze_excite_takes_its_deploy_form_with_the_same_values() -> None:
    model = randomize_statistics(create_model("finet_small", se=True, num_classes=10), 0).double().eval()
    fused = fuse(model)
    assert [entry.kind for entry in fused.fuse_report.rewritten] == ["SqueezeExcite"] * 16
    before, after = model.get_submodule("stage3.1.se"), fused.get_submodule("stage3.1.se")
    x = torch.randn(2, before.fc1.in_features, 5, 5, dtype=torch.float64)
    with torch.no_grad():
        assert relative_error(after(x), before(x)) <= 1e-12
    scale = before.bn1.weight / (before.bn1.running_var + before.bn1.eps).sqrt()
    expected = (before.fc1.weight * scale[:, None])[:, :, None, None]
    torch.testing.assert_close(after.squeeze.weight, expected, rtol=1e-14, atol=0)
    assert fuse(fused).fuse_report.rewritten == ()


def test_a_squeeze_excite_that_somebody_listens_to_keeps_its_form() -> None:
    model = randomize_statistics(create_model("finet_small", se=True, num_classes=10), 0).eval()
    model.get_submodule("stage2.0.se").register_forward_hook(lambda module, inputs, output: None)
    assert "stage2.0.se" not in [entry.path for entry in fuse(model).fuse_report.rewritten]
