"""Quantization-aware training: the fused network with its 8 bits simulated, so that its weights learn to bear them.

Weights are rounded per output channel, what every layer reads is rounded per tensor with the batch's own range, and
gradients pass as if nothing had been rounded (the straight-through estimator: Bengio et al., arXiv 1308.3432; for
int8 Jacob et al., arXiv 1712.05877). The batch's range instead of a running one leaves no state behind: a run resumes
to the bit, and the checkpoint is that of an ordinary fused network, whose weights are 8-bit ones.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from finet_deploy.errors import UsageError
from finet_deploy.fuse import count_normalization
from finet_deploy.quantize.rounding import round_weight
from finet_deploy.quantize.simulate import round_value

__all__ = ["RoundedWeight", "simulate_int8"]


class RoundedWeight(nn.Module):
    """A weight as its nearest 8-bit one; the gradient is that of the weight itself."""

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (round_weight(weight.detach()) - weight.detach())


def _round_input(_layer: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    x = inputs[0]
    seen = x.detach()
    rounded = round_value(seen.float(), float(seen.min()), float(seen.max())).to(x.dtype)
    return (x + (rounded - seen), *inputs[1:])


def simulate_int8(model: nn.Module) -> nn.Module:
    """Round the weights and inputs of every convolution and linear layer from now on, in place.

    model: fused. Raises UsageError when there is a normalization left, whose folding would change the weights again.
    """
    if left := count_normalization(model):
        raise UsageError(
            f"{len(left)} normalizations are left after fusing, first {next(iter(left))}",
            do="quantization-aware training needs a network that fuses whole",
        )
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            parametrize.register_parametrization(module, "weight", RoundedWeight())
            module.register_forward_pre_hook(_round_input)
    return model
