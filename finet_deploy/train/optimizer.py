"""SGD with momentum, and which parameters weight decay is for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from finet_deploy.train.recipes import Recipe

__all__ = ["build_optimizer", "parameter_groups", "set_lr"]


def parameter_groups(
    model: nn.Module, weight_decay: float, *, decay_norm_and_bias: bool
) -> list[dict[str, Any]]:
    """Groups for an optimizer: with `decay_norm_and_bias` all parameters decay, without only weight matrices do.

    Biases, gamma, beta and residual scalars are the parameters of at most one dimension; decaying them does not
    regularize a layer, it only moves its scale (He et al., arXiv 1812.01187, section 3.1).
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if decay_norm_and_bias:
        return [{"params": parameters, "weight_decay": weight_decay}]
    weights = [parameter for parameter in parameters if parameter.ndim > 1]
    others = [parameter for parameter in parameters if parameter.ndim <= 1]
    return [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.SGD:
    """The recipe's SGD; its learning rate is set before every step (`set_lr`)."""
    groups = parameter_groups(model, recipe.weight_decay, decay_norm_and_bias=recipe.decay_norm_and_bias)
    # Nesterov's form is not defined without momentum, and torch refuses it.
    nesterov = recipe.nesterov and recipe.momentum > 0
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov)


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """One rate for all groups."""
    for group in optimizer.param_groups:
        group["lr"] = lr
