"""Shared by the tests: statistics that a wrong fold would show, and the error of one output against another."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from finet_deploy.fuse.kinds import is_batch_norm
from finet_deploy.nn import FBNConv2d


def randomize_statistics(model: nn.Module, seed: int, *, decades: float = 1.0) -> nn.Module:
    """Make every normalization non-trivial, in place: means and beta of both signs, gamma of both signs and away
    from 0, variances over `decades` powers of ten around 1, and non-zero biases of convolutions and linear layers.

    Weights are rescaled to He's gain: with statistics that do not belong to the weights the signal would die on the
    way, and the network would be a constant, which every fold reproduces.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(like: Tensor, low: float, high: float) -> Tensor:
        values = torch.rand(like.shape, generator=generator, dtype=torch.float64) * (high - low) + low
        return values.to(device=like.device, dtype=like.dtype)

    def sign(like: Tensor) -> Tensor:
        return torch.where(uniform(like, 0, 1) < 0.3, -1.0, 1.0).to(like.dtype)

    with torch.no_grad():
        for module in model.modules():
            if is_batch_norm(module):
                tensors = {**module._buffers, **module._parameters}
                mean, var = tensors["running_mean"], tensors["running_var"]
                assert mean is not None and var is not None
                mean.copy_(uniform(mean, -0.5, 0.5))
                var.copy_(10 ** uniform(var, -decades / 2, decades / 2))
                if tensors.get("weight") is not None:
                    gamma, beta = tensors["weight"], tensors["bias"]
                    assert gamma is not None and beta is not None
                    gamma.copy_(uniform(gamma, 0.5, 1.5) * sign(gamma))
                    beta.copy_(uniform(beta, -0.5, 0.5))
            else:
                weight, bias = module._parameters.get("weight"), module._parameters.get("bias")
                if weight is not None and weight.dim() > 1:
                    weight.mul_((2 / weight[0].numel()) ** 0.5 / weight.std().clamp_min(1e-6))
                if bias is not None:
                    bias.copy_(uniform(bias, -0.3, 0.3))
    return model


def tiny_network() -> nn.Module:
    """(N, 3, 32, 32) -> (N, 10), with two FBN layers: small enough to be exported and run everywhere."""
    torch.manual_seed(0)
    layers = [FBNConv2d(3, 8, 3, 2, 1, num_groups=3), nn.ReLU(), FBNConv2d(8, 16, 1, num_groups=4), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10))
    return randomize_statistics(model, 0).eval()


def relative_error(found: Tensor, truth: Tensor) -> float:
    """Norm-relative error of one tensor: ||found - truth|| / ||truth||."""
    return float((found - truth).norm() / truth.norm())
