"""One optimizer step against the same written out in plain PyTorch, and what it does when numbers fail."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.nn.mimicnorm import largest_channel_mean
from finet_deploy.train.diagnose import NotFinite
from finet_deploy.train.distributed import Process
from finet_deploy.train.ema import build_ema, update_ema
from finet_deploy.train.learner import Learner, build_learner, micro_batch_size, refuse_single_values
from finet_deploy.train.optimizer import build_optimizer, parameter_groups
from finet_deploy.train.recipes import Recipe
from finet_deploy.train.step import draw_from, take_step
from tests.train_runs import tiny_recipe

# No normalization at all: a batch's gradient is exactly the mean of its parts'.
PLAIN = {"model": "squeezenet", "norm": "mimic", "weight_mean": "off", "last_bn": False, "num_groups": None}


def learner_of(recipe: Recipe) -> Learner:
    return build_learner(recipe, recipe.model_config(10), Process())


def batch(count: int = 16, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, 8, 8, generator=generator), torch.randint(10, (count,), generator=generator)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def assert_close(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float = 0.0) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=tolerance, msg=name)


@pytest.fixture
def fp64():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize(
    "changes",
    [
        {"momentum": 0.9},
        {"nesterov": True, "label_smoothing": 0.2, "weight_decay": 1e-2},
        {"momentum": 0.0, "clip_grad_norm": 0.1},
        {"decay_norm_and_bias": False, "weight_decay": 0.5},
    ],
)
def test_three_steps_are_those_of_a_plain_loop_to_the_bit(changes: dict) -> None:
    recipe = tiny_recipe(ema_decay=None, **changes)
    learner = learner_of(recipe)
    model = copy.deepcopy(learner.model)
    groups = [{"params": list(model.parameters())}]
    if not recipe.decay_norm_and_bias:
        groups = [{"params": [p for p in model.parameters() if p.ndim > 1]},
                  {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0}]  # fmt: skip
    plain = torch.optim.SGD(
        groups, lr=1, momentum=recipe.momentum, nesterov=recipe.nesterov, weight_decay=recipe.weight_decay
    )
    for step in range(3):
        images, labels = batch(seed=step)
        lr = 0.02 * (step + 1)
        draw_from(recipe.seed, step, 0)
        outcome = take_step(learner, images, labels, lr)
        draw_from(recipe.seed, step, 0)
        scores = model(images)
        loss = F.cross_entropy(scores, labels, label_smoothing=recipe.label_smoothing)
        plain.zero_grad()
        loss.backward()
        norm = torch.sqrt(sum(p.grad.square().sum() for p in model.parameters()))
        if recipe.clip_grad_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.clip_grad_norm)
        for group in plain.param_groups:
            group["lr"] = lr
        plain.step()
        assert outcome.loss == pytest.approx(loss.item(), rel=1e-7)
        assert outcome.grad_norm == pytest.approx(norm.item(), rel=1e-4)
        assert (outcome.correct, outcome.images) == (int((scores.argmax(1) == labels).sum()), 16)
    assert_close(weights(learner.model), weights(model))


def test_accumulated_micro_batches_are_the_whole_batch_where_no_norm_looks_at_it(fp64: None) -> None:
    found = []
    for accumulate in (1, 2, 8):
        learner = learner_of(tiny_recipe(**PLAIN, accumulate=accumulate))
        outcomes = [take_step(learner, *batch(seed=step), 1e-4) for step in range(2)]
        found.append((weights(learner.model), [o.loss for o in outcomes], [o.grad_norm for o in outcomes]))
    for state, losses, norms in found[1:]:
        assert_close(state, found[0][0], 1e-12)
        assert losses == pytest.approx(found[0][1], rel=1e-12)
        assert norms == pytest.approx(found[0][2], rel=1e-10)


def test_batch_statistics_are_those_of_a_micro_batch() -> None:
    whole, parts = (learner_of(tiny_recipe(accumulate=n, dropout=0.0)) for n in (1, 2))
    x, y = batch()
    take_step(whole, x, y, 0.0)
    take_step(parts, x, y, 0.0)
    first = whole.model.bn1.running_mean
    convolved = [parts.model.conv1(part).mean((0, 2, 3)) for part in x.chunk(2)]
    expected = 0.9 * (0.1 * convolved[0]) + 0.1 * convolved[1]  # two updates with momentum 0.1
    torch.testing.assert_close(parts.model.bn1.running_mean, expected)
    assert not torch.allclose(first, expected)


def test_weight_decay_spares_what_has_one_dimension_when_told_so() -> None:
    model = learner_of(tiny_recipe()).model
    decayed, spared = parameter_groups(model, 0.3, decay_norm_and_bias=False)
    assert (decayed["weight_decay"], spared["weight_decay"]) == (0.3, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert all("bn" in names[id(p)] or names[id(p)].endswith("bias") for p in spared["params"])
    assert not any(".bn" in names[id(p)] or names[id(p)].endswith("bias") for p in decayed["params"])
    assert len(decayed["params"]) + len(spared["params"]) == len(names)
    (everything,) = parameter_groups(model, 0.3, decay_norm_and_bias=True)
    assert (len(everything["params"]), everything["weight_decay"]) == (len(names), 0.3)
    model.conv1.weight.requires_grad_(False)
    assert (
        sum(len(group["params"]) for group in build_optimizer(model, tiny_recipe()).param_groups)
        == len(names) - 1
    )


def test_the_average_follows_weights_and_statistics() -> None:
    model = nn.BatchNorm1d(2)
    ema = build_ema(model, 0.75)
    expected = None
    for step in range(3):
        with torch.no_grad():
            model.weight.fill_(float(step + 1))
            model.running_mean.fill_(10.0 * step)
            model.num_batches_tracked.fill_(step + 5)
        update_ema(ema, model)
        values = torch.tensor([step + 1.0, 10.0 * step])
        expected = values if expected is None else 0.75 * expected + 0.25 * values
        found = torch.stack([ema.module.weight[0].detach(), ema.module.running_mean[0]])
        torch.testing.assert_close(found, expected)
        assert ema.module.num_batches_tracked == step + 5
    assert not ema.module.training


def test_what_is_delivered_is_the_average_where_there_is_one() -> None:
    learner = learner_of(tiny_recipe(ema_decay=0.5))
    for step in range(2):
        take_step(learner, *batch(seed=step), 0.1)
    assert learner.evaluated is not learner.model
    assert not torch.equal(learner.evaluated.fc2.weight, learner.model.fc2.weight)
    bare = learner_of(tiny_recipe(ema_decay=None))
    assert bare.evaluated is bare.model


@pytest.mark.parametrize("form", ["projection", "reparametrization"])
def test_filters_keep_their_mean_of_zero_through_the_steps(form: str) -> None:
    recipe = tiny_recipe(model="squeezenet", norm="mimic", num_groups=None, weight_mean=form)
    learner = learner_of(recipe)
    assert largest_channel_mean(learner.model) < 1e-6
    before = weights(learner.model)
    for step in range(2):
        take_step(learner, *batch(seed=step), 0.05)
        assert largest_channel_mean(learner.model) < 1e-6
        assert learner.ema is not None and largest_channel_mean(learner.ema.module) < 1e-6
    assert any(not torch.equal(value, before[name]) for name, value in weights(learner.model).items())


def test_without_weight_mean_filters_go_where_the_gradient_says() -> None:
    learner = learner_of(tiny_recipe(model="squeezenet", norm="mimic", num_groups=None, weight_mean="off"))
    take_step(learner, *batch(), 0.05)
    convs = [m.weight.detach() for m in learner.model.modules() if isinstance(m, nn.Conv2d)]
    assert max(float(weight.mean((1, 2, 3)).abs().max()) for weight in convs) > 1e-4


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_half_precision_computes_otherwise_and_keeps_the_weights_in_fp32(amp: str) -> None:
    full, half = learner_of(tiny_recipe()), learner_of(tiny_recipe(amp=amp))
    x, y = batch()
    draw_from(0, 0, 0)
    expected = take_step(full, x, y, 0.02)
    draw_from(0, 0, 0)
    found = take_step(half, x, y, 0.02)
    assert found.loss != expected.loss
    assert found.loss == pytest.approx(expected.loss, rel=0.05)
    assert all(parameter.dtype == torch.float32 for parameter in half.model.parameters())
    assert (half.scaler is not None) == (amp == "fp16")


def test_an_overflow_under_loss_scaling_leaves_the_step_out_and_lowers_the_scale() -> None:
    learner = learner_of(tiny_recipe(amp="fp16", **PLAIN))
    assert learner.scaler is not None
    learner.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**126)
    before = weights(learner.model)
    outcome = take_step(learner, *batch(), 0.02)
    assert outcome.skipped and not math.isfinite(outcome.grad_norm)
    assert_close(weights(learner.model), before)
    assert learner.ema is not None and learner.ema.n_averaged == 0
    assert learner.scaler.get_scale() == 2.0**125


def test_a_gradient_that_no_scale_saves_ends_the_run() -> None:
    learner = learner_of(tiny_recipe(amp="fp16"))
    learner.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**-10)
    learner.model.bn5.weight.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(NotFinite, match=r"no loss scale keeps the gradient finite: first in bn5\.weight"):
        take_step(learner, *batch(), 0.02)


def test_a_nan_loss_names_the_layer_and_changes_no_weight() -> None:
    learner = learner_of(tiny_recipe())
    learner.model.stage3[2].conv2.register_forward_hook(lambda _m, _x, y: y / 0)
    before = {name: p.detach().clone() for name, p in learner.model.named_parameters()}
    with pytest.raises(NotFinite, match=r"the loss is nan: first in the output of layer stage3\.2\.conv2$"):
        take_step(learner, *batch(), 0.02)
    assert_close({name: p.detach() for name, p in learner.model.named_parameters()}, before)
    assert not learner.model.fc1._forward_hooks  # nobody watches any longer


def test_a_bad_weight_and_bad_images_are_told_apart() -> None:
    learner = learner_of(tiny_recipe())
    images, labels = batch()
    with torch.no_grad():
        learner.model.fc1.weight[3, 3] = math.inf
    with pytest.raises(NotFinite, match=r"output of layer fc1, fc1\.weight is not finite"):
        take_step(learner, images, labels, 0.02)
    images[2, 1, 0, 0] = math.nan
    with pytest.raises(NotFinite, match="the images themselves are not finite"):
        take_step(learner, images, labels, 0.02)


def test_a_nan_gradient_behind_a_finite_loss_names_the_parameter_nearest_to_the_loss() -> None:
    learner = learner_of(tiny_recipe())
    for parameter in (learner.model.bn1.weight, learner.model.bn5.bias):
        parameter.register_hook(lambda gradient: gradient * float("inf"))
    before = {name: p.detach().clone() for name, p in learner.model.named_parameters()}
    with pytest.raises(NotFinite, match=r"the gradient is not finite: first in bn5\.bias"):
        take_step(learner, *batch(), 0.02)
    assert_close({name: p.detach() for name, p in learner.model.named_parameters()}, before)


def test_a_batch_that_cannot_be_split_is_refused_with_one_that_can() -> None:
    assert micro_batch_size(tiny_recipe(batch_size=24, accumulate=3), Process(world_size=2)) == 4
    with pytest.raises(UsageError, match=r"batch_size=16 is not a multiple of 6 .*use 12"):
        micro_batch_size(tiny_recipe(batch_size=16, accumulate=2), Process(world_size=3))


def test_one_image_is_refused_only_where_a_norm_has_one_value_of_it() -> None:
    learner = learner_of(tiny_recipe(batch_size=1))
    before, drawn = weights(learner.model), torch.get_rng_state()
    with pytest.raises(UsageError, match="one value per channel, which has no variance; give a larger"):
        refuse_single_values(learner, 8)
    assert_close(weights(learner.model), before)  # the norms in front had seen the blank image
    assert torch.equal(torch.get_rng_state(), drawn)
    refuse_single_values(learner_of(tiny_recipe(batch_size=1, **PLAIN)), 8)


def test_the_draws_of_a_step_depend_on_seed_step_and_rank_alone() -> None:
    def draw(*key: int) -> float:
        draw_from(*key)
        return float(torch.rand(()))

    keys = [(seed, step, rank) for seed in (0, 1) for step in (0, 1, 2) for rank in (0, 1)]
    first = [draw(*key) for key in keys]
    assert len(set(first)) == len(keys)
    assert [draw(*key) for key in reversed(keys)] == first[::-1]


def test_channels_last_is_the_same_function_and_the_same_step(fp64: None) -> None:
    states = []
    for channels_last in (False, True):
        learner = learner_of(tiny_recipe(channels_last=channels_last, dropout=0.0))
        take_step(learner, *batch(), 0.02)
        states.append(weights(learner.model))
        strides = learner.model.conv1.weight.is_contiguous(memory_format=torch.channels_last)
        assert strides == channels_last
    assert_close(states[1], states[0], 1e-9)


def test_a_failing_compiler_is_one_readable_error(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._dynamo import reset
    from torch._inductor import config

    reset()
    monkeypatch.setattr(config.cpp, "cxx", (None, "/no/such/compiler"))
    learner = learner_of(tiny_recipe(compile=True, **PLAIN))
    learner.forward = torch.compile(nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10), nn.ReLU()))
    with pytest.raises(FinetDeployError, match=r"torch\.compile failed: .*train with --no-compile"):
        take_step(learner, *batch(), 0.02)
    reset()
