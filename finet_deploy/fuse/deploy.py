"""Exact changes of spelling after the folds: the same function in the form that mobile delegates take whole."""

from __future__ import annotations

import torch
from torch import nn

from finet_deploy.fuse.kinds import count_normalization
from finet_deploy.fuse.reparameterize import replace_module
from finet_deploy.fuse.report import Folded
from finet_deploy.nn.finet import DeploySqueezeExcite, SqueezeExcite

__all__ = ["to_deploy_forms"]


def to_deploy_forms(model: nn.Module) -> tuple[nn.Module, tuple[Folded, ...]]:
    """`model` with every Squeeze-Excite of Finet written as 1x1 convolutions, and what was rewritten.

    One whose normalizations had to stay, or that somebody listens to, stays as it is.
    """
    done = []
    for path, module in list(model.named_modules()):
        if type(module) is not SqueezeExcite or count_normalization(module) or _watched(module):
            continue
        deploy = DeploySqueezeExcite(_as_convolution(module.fc1), _as_convolution(module.fc2)).eval()
        model = replace_module(model, path, deploy)
        done.append(Folded(path=path, kind="SqueezeExcite", into=path))
    return model, tuple(done)


def _watched(module: nn.Module) -> bool:
    """Whether hooks look at the parts, which are other parts afterwards."""
    return any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())


def _as_convolution(linear: nn.Linear) -> nn.Conv2d:
    """A 1x1 convolution with the very values of `linear`: (O, C) becomes (O, C, 1, 1)."""
    with torch.device("meta"):  # no initialization, no random numbers drawn
        convolution = nn.Conv2d(linear.in_features, linear.out_features, 1, bias=linear.bias is not None)
    weight, bias = linear.weight, linear.bias
    convolution.weight = nn.Parameter(weight.detach()[:, :, None, None], requires_grad=weight.requires_grad)
    if bias is not None:
        convolution.bias = nn.Parameter(bias.detach(), requires_grad=bias.requires_grad)
    return convolution
