"""The learning rate as a pure function of the step: nothing to save, nothing that a resume could get wrong."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finet_deploy.train.recipes import Recipe

__all__ = ["lr_at", "total_steps", "warmup_steps"]


def total_steps(recipe: Recipe, steps_per_epoch: int) -> int:
    """Optimizer steps of the whole run."""
    return recipe.epochs * steps_per_epoch


def warmup_steps(recipe: Recipe, steps_per_epoch: int) -> int:
    """Steps before the full rate is reached; a fraction of an epoch is allowed, more than the run is cut."""
    return min(round(recipe.warmup_epochs * steps_per_epoch), total_steps(recipe, steps_per_epoch))


def lr_at(recipe: Recipe, step: int, steps_per_epoch: int) -> float:
    """The rate of optimizer step `step`, counted from 0.

    Warm-up (Goyal et al., arXiv 1706.02677, section 2.2): from `warmup_start * lr` in equal steps up to lr. After it,
    with t from 0 to 1 over the steps that are left:

    linear    lr * (1 - t)                   "decayed linearly from 0.2 to 0" (Luo et al., section 5.1)
    cosine    lr * (1 + cos(pi t)) / 2       (Loshchilov and Hutter, arXiv 1608.03983, Eq. 5, no restarts)
    step      lr * gamma^k                   k: milestones reached; they are epochs counted from the run's start
    constant  lr
    """
    warm = warmup_steps(recipe, steps_per_epoch)
    if step < warm:
        return recipe.lr * (recipe.warmup_start + (1 - recipe.warmup_start) * step / warm)
    if recipe.schedule == "step":
        reached = sum(step >= milestone * steps_per_epoch for milestone in recipe.milestones)
        return recipe.lr * recipe.gamma**reached
    if recipe.schedule == "constant":
        return recipe.lr
    left = total_steps(recipe, steps_per_epoch) - warm
    t = min(1.0, (step - warm) / left) if left else 1.0
    if recipe.schedule == "linear":
        return recipe.lr * (1 - t)
    return recipe.lr * (1 + math.cos(math.pi * t)) / 2
