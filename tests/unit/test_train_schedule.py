"""The learning rate as a function of the step: its laws, and the recipes' own numbers."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finet_deploy.train.recipes import Recipe, load_recipe
from finet_deploy.train.schedule import lr_at, total_steps, warmup_steps
from tests.train_runs import tiny_recipe

BASE = tiny_recipe()


@st.composite
def runs(
    draw: st.DrawFn, schedules: tuple[str, ...] = ("linear", "cosine", "constant", "step")
) -> tuple[Recipe, int]:
    epochs = draw(st.integers(1, 20))
    milestones = draw(st.sets(st.integers(1, 25), max_size=4))
    recipe = BASE.with_overrides(
        epochs=epochs,
        lr=draw(st.floats(1e-4, 10)),
        schedule=draw(st.sampled_from(schedules)),
        milestones=tuple(sorted(milestones)),
        gamma=draw(st.floats(0.01, 1)),
        warmup_epochs=draw(st.floats(0, epochs / 2)),
        warmup_start=draw(st.floats(0, 1)),
    )
    return recipe, draw(st.integers(1, 30))


def rates(recipe: Recipe, spe: int) -> list[float]:
    return [lr_at(recipe, step, spe) for step in range(total_steps(recipe, spe) + 1)]


@given(runs())
def test_the_rate_rises_through_warm_up_and_never_after(run: tuple[Recipe, int]) -> None:
    recipe, spe = run
    values, warm = rates(recipe, spe), warmup_steps(recipe, spe)
    assert all(a <= b * (1 + 1e-12) for a, b in pairwise(values[:warm]))
    assert all(a >= b * (1 - 1e-12) for a, b in pairwise(values[warm:]))
    assert all(0 <= value <= recipe.lr * (1 + 1e-12) for value in values)


@given(runs(("linear", "cosine", "constant")))
def test_the_first_step_after_warm_up_has_the_full_rate(run: tuple[Recipe, int]) -> None:
    recipe, spe = run
    assert lr_at(recipe, warmup_steps(recipe, spe), spe) == pytest.approx(recipe.lr)


@given(runs())
def test_warm_up_starts_at_its_share_and_has_equal_steps(run: tuple[Recipe, int]) -> None:
    recipe, spe = run
    warm = warmup_steps(recipe, spe)
    ramp = [lr_at(recipe, step, spe) for step in range(warm)]
    if warm:
        assert ramp[0] == pytest.approx(recipe.warmup_start * recipe.lr)
        height = (recipe.lr - ramp[0]) / warm
        assert ramp == pytest.approx([ramp[0] + height * step for step in range(warm)])


@given(runs(("linear", "cosine")))
def test_linear_and_cosine_end_at_zero_and_cross_the_middle_at_half(run: tuple[Recipe, int]) -> None:
    recipe, spe = run
    warm, total = warmup_steps(recipe, spe), total_steps(recipe, spe)
    assert lr_at(recipe, total, spe) == pytest.approx(0, abs=1e-12)
    if (total - warm) % 2 == 0:
        assert lr_at(recipe, (total + warm) // 2, spe) == pytest.approx(recipe.lr / 2)


def test_linear_falls_in_equal_steps_and_cosine_does_not() -> None:
    linear = rates(BASE.with_overrides(schedule="linear", epochs=10, warmup_epochs=0), 1)
    cosine = rates(BASE.with_overrides(schedule="cosine", epochs=10, warmup_epochs=0), 1)
    assert linear == pytest.approx([BASE.lr * (1 - n / 10) for n in range(11)])
    assert cosine == pytest.approx([BASE.lr * (1 + math.cos(math.pi * n / 10)) / 2 for n in range(11)])


@given(runs(("step",)))
def test_step_counts_milestones_in_epochs_of_the_whole_run(run: tuple[Recipe, int]) -> None:
    recipe, spe = run
    for step in range(warmup_steps(recipe, spe), total_steps(recipe, spe)):
        reached = len([milestone for milestone in recipe.milestones if milestone <= step // spe])
        assert lr_at(recipe, step, spe) == pytest.approx(recipe.lr * recipe.gamma**reached)


def test_the_papers_recipes_have_the_papers_rates() -> None:
    cifar = load_recipe("paper-cifar")  # 0.1, divided by 10 at epochs 100 and 150 of 200
    spe = 50_000 // cifar.batch_size
    by_epoch = [lr_at(cifar, epoch * spe, spe) for epoch in (0, 99, 100, 149, 150, 199)]
    assert by_epoch == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])
    imagenet = load_recipe("paper-imagenet")  # linearly from 0.2 to 0 in 320 epochs
    assert [lr_at(imagenet, epoch, 1) for epoch in (0, 160, 320)] == pytest.approx([0.2, 0.1, 0.0])
