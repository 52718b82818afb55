"""Batch statistics over all processes for a whole model: FBN's and every batch normalization's."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from finet_deploy.nn.moments_sync import SyncGroup
from finet_deploy.nn.sync_norm import SynchronizedBatchNorm

__all__ = ["convert_sync_norm"]


def convert_sync_norm(model: nn.Module, process_group: Any = None) -> nn.Module:
    """Make every FBN layer and batch normalization of `model` take its statistics over all processes, in place.

    What the moment form of FBN communicates are the moments, whatever G is. On CUDA plain batch normalizations become
    torch's `SyncBatchNorm`, elsewhere `SynchronizedBatchNorm`; an FBN layer reads its process group from either.
    Parameters, buffers and state dict keys stay; so does the mode (train or eval). `process_group`: None for all
    processes. Returns the model, or its replacement when the model itself is a batch normalization.
    """
    return _converted(model, SyncGroup(process_group))


def _converted(module: nn.Module, sync: SyncGroup) -> nn.Module:
    if isinstance(module, _BatchNorm):
        return _converted_norm(module, sync)
    for name, child in module.named_children():
        replacement = _converted(child, sync)
        if replacement is not child:
            setattr(module, name, replacement)
    return module


def _converted_norm(norm: _BatchNorm, sync: SyncGroup) -> nn.Module:
    if isinstance(norm, nn.SyncBatchNorm):
        norm.process_group = sync.process_group
        return norm
    if isinstance(norm, SynchronizedBatchNorm):
        norm.sync = sync
        return norm
    tensors = [tensor for tensor in (norm.weight, norm.running_mean) if tensor is not None]
    if any(tensor.is_cuda for tensor in tensors):
        return nn.SyncBatchNorm.convert_sync_batchnorm(norm, sync.process_group)
    converted = SynchronizedBatchNorm(
        norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats, sync=sync
    )
    # The very same tensors: an optimizer that already holds the parameters goes on to train them.
    converted._parameters, converted._buffers = norm._parameters, norm._buffers
    converted.training = norm.training
    return converted
