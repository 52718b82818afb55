"""MimicNorm's networks: weights drawn as its code draws them, and the bytes for backward that its code needs."""

from __future__ import annotations

import math

import pytest
import torch
from sklearn.datasets import load_digits
from torch import nn

from finet_deploy.nn import vgg
from finet_deploy.nn.mimicnorm import project_weight_mean_, weight_mean_layers
from finet_deploy.zoo import create_model
from tests.benchmarks.saved_bytes import saved_bytes

# MiB an image at batch 16, 32 px, 100 classes: measured on the repository's own models.
REFERENCE_MIB = {
    "vgg11": (1.62, 1.04),
    "vgg16": (2.58, 1.52),
    "resnet18": (4.49, 3.08),
    "resnet50": (24.36, 18.11),
    "squeezenet": (4.27, 2.88),
    "shufflenetv2": (5.01, 3.69),
}


@pytest.mark.parametrize("name", REFERENCE_MIB)
def test_bytes_saved_for_backward_are_those_of_the_reference_implementation(name):
    images, labels = torch.zeros(16, 3, 32, 32), torch.zeros(16, dtype=torch.int64)
    found = {}
    for norm in ("bn", "mimic"):
        model = create_model(name, norm=norm, cifar=True, num_classes=100)
        found[norm] = saved_bytes(model, images, labels) / len(images) / 2**20
    assert found["mimic"] < found["bn"]
    assert (found["bn"], found["mimic"]) == pytest.approx(REFERENCE_MIB[name], rel=0.01)


def test_saved_bytes_counts_a_storage_once_and_no_parameters():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4, bias=False)

        def forward(
            self, x
        ):  # (N, 4): x kept for the weight's gradient, y by the square, once as itself and as a view
            y = self.fc(x)
            return y * y.view(-1, 4)

    images, labels = torch.randn(8, 4), torch.zeros(8, dtype=torch.int64)
    # x, y, and of the loss: its log-probabilities, the labels and the count of labels (a number).
    assert saved_bytes(Net(), images, labels) == 3 * 8 * 4 * 4 + 8 * 8 + 4


def losses_at_lr_0_2(steps, **options):
    """Cross-entropy of SqueezeNet on scikit-learn's digits, step by step until it is not finite; short warm-up."""
    digits = load_digits()
    images = torch.tensor(digits.images / 8 - 1, dtype=torch.float32)[:, None].expand(-1, 3, -1, -1)
    labels = torch.tensor(digits.target)
    model = create_model("squeezenet", norm="mimic", cifar=True, num_classes=10, seed=0, **options)
    optimizer = torch.optim.SGD(model.parameters(), 0.2, momentum=0.9, weight_decay=5e-4)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0)).split(32)
    losses = []
    for step, batch in zip(range(steps), order):
        optimizer.param_groups[0]["lr"] = 0.2 * min(1, (step + 1) / 20)
        x = nn.functional.interpolate(images[batch], size=(32, 32), mode="bilinear")
        loss = nn.functional.cross_entropy(model(x), labels[batch])
        if not loss.isfinite():
            return [*losses, math.inf]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        project_weight_mean_(model)
        losses.append(loss.item())
    return losses


def test_at_lr_0_2_the_last_norm_lets_it_train_and_weight_mean_alone_does_not():
    chance = math.log(10)
    losses = losses_at_lr_0_2(28)
    assert sum(losses[-6:]) / 6 < 0.7 * chance
    assert losses_at_lr_0_2(28, last_bn=False)[-1] > 0.98 * chance


def n_of(conv):
    """The code's n, by the reference table."""
    return math.prod(conv.kernel_size)


def resnet(conv):
    return 2 / (n_of(conv) * conv.in_channels)


def shufflenet(conv):
    return 2 / (n_of(conv) * max(4, conv.in_channels / conv.groups))


CODE_VARIANCE = {
    ("vgg11", True): lambda conv: 2.8 / (n_of(conv) * conv.in_channels),
    ("vgg11", False): lambda conv: 2.8 / (n_of(conv) * conv.out_channels),
    ("squeezenet", True): lambda conv: 2.8 / (n_of(conv) * conv.in_channels if conv.in_channels > 3 else 36),
    ("resnet18", True): resnet,
    ("resnet18", False): resnet,
    ("resnet50", True): resnet,
    ("shufflenetv2", True): shufflenet,
    ("shufflenetv2", False): shufflenet,
    ("finet_small", True): shufflenet,
}


@pytest.mark.parametrize(("name", "cifar"), CODE_VARIANCE)
def test_weights_are_drawn_with_the_codes_variance(name, cifar, monkeypatch):
    monkeypatch.setattr(vgg, "HIDDEN", 256)
    model = create_model(name, norm="mimic", cifar=cifar, num_classes=400, seed=0)
    rule = "fan-in" if cifar else "groups"
    expect_variances(model, CODE_VARIANCE[name, cifar], set(weight_mean_layers(model, rule).values()))


@pytest.mark.parametrize("name", ["vgg11", "resnet18", "shufflenetv2", "finet_small"])
def test_weights_are_drawn_with_the_papers_variance(name, monkeypatch):
    monkeypatch.setattr(vgg, "HIDDEN", 256)
    model = create_model(name, norm="mimic", mimic_variant="paper", cifar=True, num_classes=400, seed=0)
    eligible = set(weight_mean_layers(model, "paper").values())

    def variance(conv):
        return 2.934 / conv.weight[0].numel() if conv in eligible else shufflenet(conv)

    expect_variances(model, variance, eligible)


def expect_variances(model, variance, eligible):
    """Within 2 %, each large layer by itself and the small ones together; weight mean takes 1/n of the variance."""
    small, checked = [], 0
    for module in model.modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        if isinstance(module, nn.Linear):
            expected = 2 / module.in_features
        else:
            n = module.weight[0].numel()
            expected = variance(module) * ((n - 1) / n if module in eligible else 1)
        standardized = module.weight.detach().flatten() / expected**0.5
        if standardized.numel() < 50_000:
            small.append(standardized)
            continue
        checked += 1
        assert float(standardized.var()) == pytest.approx(1, rel=0.02)
    assert checked >= 2
    assert float(torch.cat(small).var()) == pytest.approx(1, rel=0.05)
