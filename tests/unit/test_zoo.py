"""Names lead to the right networks, and wrong names and options are refused with what would do."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

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
        ("resnet19", "resnet18"),
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
        ("resnet18_fbn", {"norm": "mimic"}, "has no norm 'mimic'; use one of: fbn"),
        ("resnet18", {"norm": "fbn"}, "use one of: bn, mimic"),
        ("resnet18", {"num_groups": 4}, "num_groups"),
        ("resnet18", {"affine": False}, "affine"),
        ("resnet18", {"dropout": 0.1}, "dropout"),
        ("vgg11", {"dropout": 1.0}, "below 1"),
        ("vgg11", {"dropout": -0.1}, "0 or more"),
        ("vgg11", {"last_bn": False}, "norm=bn has no option last_bn"),
        ("vgg11", {"norm": "bn", "mimic_variant": "paper"}, "mimic_variant"),
        ("vgg11", {"norm": "mimic", "mimic_variant": "text"}, "use code or paper"),
        ("finet_small", {"norm": "mimic", "channels_per_group": 20}, "channels_per_group"),
        ("finet_small", {"norm": "bn", "channels_per_group": 20}, "channels_per_group"),
        ("finet_small", {"norm": "mimic", "affine": False}, "affine"),
        ("finet_small", {"norm": "layer"}, "has no norm 'layer'"),
        ("torchvision:mobilenet_v2", {"norm": "bn"}, "norm"),
        ("mobilenetv3_large", {"weight_mean": True}, "weight_mean"),
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


@pytest.mark.parametrize(
    ("name", "norm"), [(n, norm) for n, family in FAMILIES.items() for norm in family.norms]
)
def test_a_configuration_survives_json_and_builds_the_same_network(name, norm):
    options = {"norm": norm, "num_classes": 7, "cifar": True}
    if "fbn" in FAMILIES[name].norms:
        options |= {"num_groups": 2}
    if norm == "fbn":
        options |= {"affine": False}
    if norm == "mimic":
        options |= {"mimic_variant": "paper", "weight_mean": False}
    if FAMILIES[name].takes_dropout:
        options |= {"dropout": 0.25}
    config = resolve_config(name, **options)
    again = ModelConfig.from_json_object(json.loads(json.dumps(config.to_json_object())))
    assert again == config
    model, other = create_from_config(config), create_from_config(again)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    assert shapes == {key: value.shape for key, value in other.state_dict().items()}
    drops = [m.p for m in model.modules() if isinstance(m, nn.Dropout)]
    assert set(drops) == ({0.25} if FAMILIES[name].takes_dropout else set())


def test_a_configuration_from_before_the_norms_is_the_fbn_network():
    stored = {"name": "finet_small", "num_groups": 4, "channels_per_group": None, "se": True, "affine": True}
    config = ModelConfig.from_json_object({**stored, "num_classes": 10, "cifar": False})
    assert config == resolve_config("finet_small", se=True, num_classes=10)
    assert config.norm == "fbn"


def test_finet_with_bn_has_the_widths_of_the_fbn_network_and_the_parameters_of_one_group():
    count = {
        (norm, G): sum(p.numel() for p in create_model("finet_small", norm=norm, num_groups=G).parameters())
        for norm in ("bn", "fbn")
        for G in (1, 4)
    }
    assert count["bn", 1] == count["fbn", 1] == 2_388_268  # Table 2
    assert count["fbn", 1] < count["bn", 4] < count["fbn", 4] == 2_402_480
    assert resolve_config("finet_small", norm="bn").num_groups == 1
    one_group, plain = create_model("finet_small", num_groups=1), create_model("finet_small", norm="bn")
    assert one_group.state_dict().keys() == plain.state_dict().keys()
    plain.load_state_dict(one_group.state_dict())
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(one_group.eval()(x), plain.eval()(x), rtol=1e-4, atol=1e-6)


def test_a_title_says_what_differs_from_the_plain_network():
    assert resolve_config("resnet18", cifar=True).title == "resnet18 cifar"
    assert resolve_config("finet_small", norm="bn").title == "finet_small G=1 bn"
    config = resolve_config("vgg16", norm="mimic", mimic_variant="paper", last_bn=False, weight_mean=False)
    assert config.title == "vgg16 mimic paper no-weight-mean no-last-bn"


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"name": "finet_small", "width": 3},
        {"name": 3},
        {"name": "x", "cifar": "yes"},
        {"name": "finet_small", "norm": "layer"},
        {"name": "resnet18_fbn", "norm": "bn"},
        {"name": "vgg11", "norm": "bn", "last_bn": False},
        {"name": "vgg11", "norm": "mimic", "mimic_variant": "../x"},
        {"name": "vgg11", "norm": "bn", "dropout": "0.5"},
        {"name": "vgg11", "norm": "bn", "dropout": float("nan")},
    ],
)
def test_a_foreign_configuration_is_refused(data):
    with pytest.raises(UsageError):
        ModelConfig.from_json_object(data)


def test_the_default_number_of_groups_is_four():
    assert create_model("finet_small").model_config.num_groups == 4
    assert create_model("finet_small", channels_per_group=20).model_config.num_groups is None
