"""MimicNorm's networks on the command line: described, refused, fused and stored."""

from __future__ import annotations

import json

import pytest

from tests.cli import USAGE, error_line, run_cli

TINY = ("shufflenetv2", "--norm", "mimic", "--cifar", "--num-classes", "5")


def test_the_networks_are_listed_and_described_with_their_norm(capsys):
    listed = run_cli(capsys, "models")[1]
    assert all(
        name in listed for name in ("vgg11", "vgg16", "resnet18 ", "resnet50 ", "squeezenet", "shufflenetv2 ")
    )
    options = ("--mimic-variant", "paper", "--no-weight-mean", "--no-last-bn", "--json")
    status, out, _ = run_cli(capsys, "models", *TINY, *options)
    config = json.loads(out)["model_config"]
    assert status == 0
    assert (config["norm"], config["mimic_variant"]) == ("mimic", "paper")
    assert (config["weight_mean"], config["last_bn"]) == (False, False)
    assert config["num_groups"] is None


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (("models", "resnet18", "--no-last-bn"), "norm=bn has no option last_bn"),
        (("models", "resnet18", "--norm", "fbn"), "use one of: bn, mimic"),
        (("models", "finet_small", "--norm", "group"), "group"),
        (("models", "vgg11", "--num-groups", "4"), "num_groups"),
    ],
)
def test_options_of_another_norm_are_refused(capsys, arguments, hint):
    assert hint in error_line(capsys, USAGE, *arguments)


def test_a_network_with_additions_left_is_stored_in_its_deploy_form_and_fuses_again_to_itself(
    capsys, tmp_path
):
    path = tmp_path / "fused.safetensors"
    status, out, _ = run_cli(capsys, "fuse", *TINY, "-o", path)
    assert status == 0
    assert "shufflenetv2 mimic cifar: 37 folded, 16 left" in out
    assert "left stage2.0.branch.7 (LearnableShift): it stands after a ReLU" in out
    status, out, _ = run_cli(capsys, "fuse", path)
    assert status == 0
    assert "shufflenetv2 mimic cifar: 0 folded, 16 left" in out
