"""How long a grid will take, from a few timed training steps of each network in it. A rough figure, not a benchmark."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F

from finet_deploy.names import ModelConfig
from finet_deploy.nn.fbn import set_impl
from finet_deploy.reproduce.grid import Cell
from finet_deploy.train.recipes import Recipe
from finet_deploy.zoo import create_from_config

__all__ = ["Cost", "estimate_costs"]

PROBE_IMAGES = 32
PROBE_STEPS = 3


@dataclass(frozen=True)
class Cost:
    """Of one cell: parameters of its network, images trained on in all, and about how many seconds that takes."""

    parameters: int
    images: int
    seconds: float


def estimate_costs(
    cells: Sequence[Cell], images: int, num_classes: int, device: torch.device
) -> dict[str, Cost]:
    """Each cell's cost by its name. images: of the training split. Validation and reading of images are not in it."""
    timed: dict[tuple[ModelConfig, int, str], tuple[int, float]] = {}
    costs = {}
    for cell in cells:
        recipe = cell.recipe
        key = (recipe.model_config(num_classes), recipe.image_size, recipe.fbn_impl)
        if key not in timed:
            timed[key] = _time_step(recipe, num_classes, device)
        parameters, seconds = timed[key]
        total = recipe.epochs * (images // recipe.batch_size) * recipe.batch_size
        costs[cell.name] = Cost(parameters, total, total * seconds)
    return costs


def _time_step(recipe: Recipe, num_classes: int, device: torch.device) -> tuple[int, float]:
    """(parameters, seconds an image) of the fastest step after a first one, which allocates and compiles."""
    model = create_from_config(recipe.model_config(num_classes), seed=0).to(device).train()
    set_impl(model, recipe.fbn_impl)
    generator = torch.Generator().manual_seed(0)
    count = min(PROBE_IMAGES, recipe.batch_size)
    images = torch.randn(count, 3, recipe.image_size, recipe.image_size, generator=generator).to(device)
    labels = (torch.arange(count) % num_classes).to(device)
    _step(model, images, labels)
    seconds = []
    for _ in range(PROBE_STEPS):
        _wait(device)
        started = time.perf_counter()
        _step(model, images, labels)
        _wait(device)
        seconds.append(time.perf_counter() - started)
    return sum(parameter.numel() for parameter in model.parameters()), min(seconds) / count


def _step(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> None:
    model.zero_grad(set_to_none=True)
    F.cross_entropy(model(images), labels).backward()


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
