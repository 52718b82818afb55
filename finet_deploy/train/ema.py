"""An exponential moving average of the weights and of the running statistics: torch's AveragedModel."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

__all__ = ["build_ema", "update_ema"]


def build_ema(model: nn.Module, decay: float) -> AveragedModel:
    """A copy of `model` that follows it: ema <- decay * ema + (1 - decay) * model, buffers included.

    The running statistics belong to the weights they were measured with: averaged weights need averaged
    statistics. The first update copies (Polyak and Juditsky 1992 as torch has it).
    """
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True).eval()


@torch.no_grad()
def update_ema(ema: AveragedModel, model: nn.Module) -> None:
    """One step of the average. Counters (`num_batches_tracked`) are copied: a truncated mean of them means nothing."""
    ema.update_parameters(model)
    for averaged, current in zip(ema.module.buffers(), model.buffers()):
        if not averaged.is_floating_point():
            averaged.copy_(current)
