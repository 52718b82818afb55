"""timm's networks: re-parameterizable families, odd activations and pads, and the ones where something must stay."""

from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn

from finet_deploy.fuse import count_normalization, fuse
from tests.helpers import randomize_statistics, relative_error

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason="timm is not installed: pip install 'finet-deploy[timm]'"
)

SIDE = 64

# Re-parameterizable families: no normalization is left in any of them.
MERGED = [
    "repvgg_a0",
    "mobileone_s0",
    "repvit_m0_9",
    "fastvit_t8",
    "ghostnetv3_100",
    "repghostnet_050",
    "nextvit_small",
]
PLAIN = {
    "repvit_m1": {},
    "semnasnet_100": {},
    "mobilenetv3_small_075": {},
    "regnetx_002": {},
    "tf_efficientnet_lite0": {},
    "hardcorenas_a": {},
    "levit_128s": {"img_size": SIDE},
    "mobilenetv4_conv_small": {},
    "dla34": {},
    "hgnetv2_b0": {},
    "starnet_s1": {},
}
# name -> (normalizations left, why)
STAYS = {
    "resnetv2_18": (9, "its activation stands before the next layer"),
    "densenet121": (62, "its input is the result of the operation 'cat'"),
    "xcit_nano_12_p16_224": (12, "padded: its shift would be missing at the border"),
}
NOTHING_TO_FOLD = {"vit_tiny_patch16_224": {"img_size": SIDE}, "convnext_atto": {}}


def fused_and_checked(name: str, *, give_inputs: bool = False, **options) -> tuple[nn.Module, nn.Module]:
    import timm

    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=10, **options).double()
    randomize_statistics(model, 0).eval()
    x = torch.randn(2, 3, SIDE, SIDE, dtype=torch.float64)
    fused = fuse(model, example_inputs=(x,) if give_inputs else None)
    assert {tensor.dtype for tensor in fused.state_dict().values() if tensor.is_floating_point()} == {
        torch.float64
    }
    with torch.no_grad():
        truth = model(x)
        assert relative_error(fused(x), truth) <= 1e-12
        # The check itself can fail: another input gives another output.
        assert relative_error(model(x.flip(0)), truth) > 1e-3
    return model, fused


def plain_tensors(model: nn.Module) -> set[str]:
    return {
        name for module in model.modules() for name, value in vars(module).items() if torch.is_tensor(value)
    }


@pytest.mark.parametrize("name", MERGED)
def test_branches_are_merged_and_no_normalization_is_left(name):
    model, fused = fused_and_checked(name)
    report = fused.fuse_report
    assert sum(entry.kind == "reparameterized" for entry in report.folded) >= 20
    assert count_normalization(fused) == {} != count_normalization(model)
    assert not report.kept
    assert plain_tensors(fused) <= plain_tensors(model)
    assert all(parameter.requires_grad for parameter in fused.parameters())
    again = fuse(fused).fuse_report
    assert not again.folded and not again.kept


@pytest.mark.parametrize("name", PLAIN)
def test_no_normalization_is_left(name):
    model, fused = fused_and_checked(name, **PLAIN[name])
    assert count_normalization(fused) == {} != count_normalization(model)
    assert not any(entry.kind == "reparameterized" for entry in fused.fuse_report.folded)
    assert not fused.fuse_report.kept


@pytest.mark.parametrize("name", STAYS)
def test_what_cannot_be_folded_stays_with_its_reason(name):
    count, phrase = STAYS[name]
    _, fused = fused_and_checked(name)
    assert len(count_normalization(fused)) == fused.fuse_report.normalization_left == count
    reasons = {entry.path: entry.reason for entry in fused.fuse_report.kept}
    assert set(count_normalization(fused)) <= set(reasons)
    assert sum(phrase in reason for reason in reasons.values()) >= count // 2
    assert fused.fuse_report.folded


@pytest.mark.parametrize("name", NOTHING_TO_FOLD)
def test_networks_without_batch_normalization_are_left_as_they_are(name):
    _, fused = fused_and_checked(name, **NOTHING_TO_FOLD[name])
    assert fused.fuse_report.folded == ()
    assert {entry.kind for entry in fused.fuse_report.kept} <= {"LayerNorm", "LayerNorm2d"}


def test_a_network_that_needs_torch_export_is_fused_completely_with_example_inputs():
    _, fused = fused_and_checked("efficientvit_m0", give_inputs=True, img_size=SIDE)
    assert count_normalization(fused) == {}
    _, partly = fused_and_checked("efficientvit_m0", img_size=SIDE)
    assert list(count_normalization(partly)) == ["head.bn"]
    assert "give example_inputs" in partly.fuse_report.kept[0].reason


def test_a_block_that_is_the_root_is_merged():
    from timm.models.byobnet import MobileOneBlock

    torch.manual_seed(0)
    block = randomize_statistics(MobileOneBlock(8, 8), 0).double().eval()
    fused = fuse(block)
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        assert relative_error(fused(x), block(x)) <= 1e-12
    assert fused.fuse_report.folded[0].path == "" and count_normalization(fused) == {}
    assert fuse(fused).fuse_report.folded == ()


def test_a_merge_that_is_not_the_same_function_is_rejected():
    from timm.models.byobnet import MobileOneBlock

    class Forgetful(MobileOneBlock):
        def _get_kernel_bias(self):
            kernel, bias = super()._get_kernel_bias()
            return kernel, bias * 0  # the dropped bias of many a fuse

    torch.manual_seed(0)
    model = randomize_statistics(nn.Sequential(Forgetful(8, 8)), 0).double().eval()
    fused = fuse(model)
    x = torch.randn(2, 8, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        assert relative_error(fused(x), model(x)) <= 1e-12
    reasons = {entry.path: entry.reason for entry in fused.fuse_report.kept}
    assert "differs by" in reasons["0"]
    assert count_normalization(fused)


def test_a_method_called_reparameterize_that_takes_arguments_is_not_called():
    class Autoencoder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

        def reparameterize(self, mean, log_variance):
            raise AssertionError("not a merge of branches")

        def forward(self, x):
            return self.bn(self.conv(x))

    fused = fuse(Autoencoder().eval())
    assert count_normalization(fused) == {} and not fused.fuse_report.kept


def test_merged_blocks_keep_dtype_and_frozen_parameters():
    import timm

    model = timm.create_model("repvgg_a0", num_classes=10).to(torch.bfloat16).eval().requires_grad_(False)
    fused = fuse(model)
    assert {parameter.dtype for parameter in fused.parameters()} == {torch.bfloat16}
    assert not any(parameter.requires_grad for parameter in fused.parameters())
    assert torch.get_default_dtype() is torch.float32
