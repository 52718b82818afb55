"""Quantization-aware training: gradients pass straight through, and what is delivered are 8-bit weights, fused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from finet_deploy import load_checkpoint
from finet_deploy.errors import UsageError
from finet_deploy.quantize.qat import RoundedWeight, simulate_int8
from finet_deploy.quantize.rounding import round_weight
from finet_deploy.train import train
from tests.train_runs import Crash, CrashAt, assert_same_run, tiny_recipe, tiny_sets

QAT = {"qat": True, "epochs": 1, "lr": 0.001, "warmup_epochs": 0.0}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "run"
    return train(tiny_recipe(epochs=1), *tiny_sets(), folder).checkpoint


def test_the_gradient_passes_straight_through_the_rounding():
    weight = torch.randn(3, 4, 1, 1, requires_grad=True)
    rounded = RoundedWeight()(weight)
    (rounded * torch.arange(12.0).view(3, 4, 1, 1)).sum().backward()
    assert torch.equal(weight.grad, torch.arange(12.0).view(3, 4, 1, 1))
    assert torch.allclose(rounded, round_weight(weight.detach()), atol=1e-7)
    assert not torch.allclose(rounded, weight)


def test_inputs_of_layers_are_rounded_to_at_most_256_values():
    seen = {}
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 2, 1)).eval()
    simulate_int8(model)
    model[2].register_forward_pre_hook(lambda _module, inputs: seen.update(x=inputs[0]))
    with torch.no_grad():
        model(torch.randn(4, 3, 32, 32))
    assert 100 < len(seen["x"].unique()) <= 256


def test_a_normalization_left_is_refused():
    with pytest.raises(UsageError, match="1 normalizations are left"):
        simulate_int8(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval())


def test_the_checkpoint_is_fused_and_its_weights_are_8_bit_ones(trained, tmp_path):
    start = load_checkpoint(trained)
    result = train(tiny_recipe(**QAT), *tiny_sets(), tmp_path / "run", start=start)
    found = load_checkpoint(result.checkpoint)
    assert hasattr(found, "fuse_report")
    assert found.weights_origin["training"]["recipe"]["qat"] is True
    layers = [module for module in found.modules() if isinstance(module, nn.Conv2d | nn.Linear)]
    assert len(layers) > 40
    assert all(torch.allclose(round_weight(m.weight), m.weight, rtol=1e-5, atol=1e-7) for m in layers)


def test_a_run_with_simulated_rounding_resumes_to_the_bit(trained, tmp_path):
    start = load_checkpoint(trained)
    recipe = tiny_recipe(**QAT)
    train(recipe, *tiny_sets(), tmp_path / "whole", start=start)
    with pytest.raises(Crash):
        train(recipe, *tiny_sets(), tmp_path / "cut", start=start, save_every=1, observer=CrashAt(3))
    train(recipe, *tiny_sets(), tmp_path / "cut", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_what_cannot_be_started_from_is_refused_before_a_folder_is_made(trained, tmp_path):
    recipe = tiny_recipe(**QAT)
    with pytest.raises(UsageError, match="untrained network.*--init"):
        train(recipe, *tiny_sets(), tmp_path / "run")
    with pytest.raises(UsageError, match="the recipe's network is"):
        train(
            tiny_recipe(**QAT, num_groups=2), *tiny_sets(), tmp_path / "run", start=load_checkpoint(trained)
        )
    with pytest.raises(UsageError, match="mixed precision"):
        tiny_recipe(**QAT, amp="bf16")
    assert not (tmp_path / "run").exists()
