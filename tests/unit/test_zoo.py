"""Names lead to the right networks, and wrong names and options are refused with what would do."""

from __future__ import annotations

import pytest
import torch

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.names import ALIASES, FAMILIES, ModelConfig, resolve_config
from finet_deploy.zoo import create_from_config, create_model

# Multiply-adds aside, the parameters tell the variant: published figures in millions.
PEER_PARAMETERS = {
    "shufflenetv2_x1_5": 3.5,
    "mobilenetv2_x1_0": 3.5,
    "mobilenetv3_large": 5.5,
    "mnasnet_a1": 3.9,
    "mnasnet_b1": 4.4,
    "shufflenetv2_x0_5": 1.4,
    "mobilenetv2_x0_35_192": 1.7,
    "mobilenetv3_small_x0_75": 2.0,
}


@pytest.mark.parametrize("name", ALIASES)
def test_each_alias_is_the_variant_that_it_says(name):
    if ALIASES[name].target.startswith("timm:"):
        pytest.importorskip("timm", reason="the timm extra is not installed")
    count = sum(parameter.numel() for parameter in create_model(name).parameters())
    assert round(count / 1e6, 1) == PEER_PARAMETERS[name]


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone():
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, second = (create_model("finet_small", seed=3).state_dict() for _ in range(2))
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = create_model("finet_small", seed=4).state_dict()
    assert not torch.equal(first["conv1.weight"], other["conv1.weight"])


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("finet_larg", "finet_large"),
        ("resnet18", "resnet18_fbn"),
        ("torchvision:mobilenetv2", "mobilenet_v2"),
        ("timm:semnasnet_10", "semnasnet_100"),
        ("torchvision:", "torchvision:<name>"),
        ("nothing-like-it-at-all", "finet-deploy models"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_ones(name, hint):
    if name.startswith("timm:"):
        pytest.importorskip("timm", reason="the timm extra is not installed")
    with pytest.raises(UsageError, match=hint):
        create_model(name)


@pytest.mark.parametrize(
    ("name", "options", "found"),
    [
        ("torchvision:mobilenet_v2", {"num_groups": 4}, "num_groups"),
        ("mobilenetv3_large", {"se": True}, "se"),
        ("torchvision:mobilenet_v2", {"cifar": True}, "cifar"),
        ("resnet18_fbn", {"se": True}, "se"),
        ("finet_large", {"num_groups": 2, "channels_per_group": 20}, "exclude each other"),
        ("finet_large", {"num_groups": 0}, "not positive"),
        ("finet_large", {"num_classes": 0}, "not positive"),
        ("finet_large", {"pretrained": True}, "nobody publishes"),
    ],
)
def test_options_that_a_network_does_not_have_are_refused(name, options, found):
    with pytest.raises(UsageError, match=found):
        create_model(name, **options)


def test_pretrained_weights_that_cannot_be_downloaded_are_a_readable_error(monkeypatch):
    from urllib.error import URLError

    import torchvision

    def offline(*args, **kwargs):
        raise URLError("no route to host")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", offline)
    with pytest.raises(
        FinetDeployError, match="cannot get torchvision's pretrained weights.*leave --pretrained out"
    ):
        create_model("torchvision:mobilenet_v2", pretrained=True)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_configuration_survives_json_and_builds_the_same_network(name):
    config = resolve_config(name, num_groups=2, num_classes=7, cifar=True, affine=False)
    again = ModelConfig.from_json_object(config.to_json_object())
    assert again == config
    shapes = {key: value.shape for key, value in create_from_config(config).state_dict().items()}
    assert shapes == {key: value.shape for key, value in create_from_config(again).state_dict().items()}


@pytest.mark.parametrize(
    "data", [{}, {"name": "finet_small", "width": 3}, {"name": 3}, {"name": "x", "cifar": "yes"}]
)
def test_a_foreign_configuration_is_refused(data):
    with pytest.raises(UsageError):
        ModelConfig.from_json_object(data)


def test_the_default_number_of_groups_is_four():
    assert create_model("finet_small").model_config.num_groups == 4
    assert create_model("finet_small", channels_per_group=20).model_config.num_groups is None
