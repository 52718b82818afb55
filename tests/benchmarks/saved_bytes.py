"""Bytes that a training step keeps for its backward pass: exact, the same on every machine."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["saved_bytes"]


def saved_bytes(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Bytes of the storages that autograd holds between the forward pass of cross-entropy and its backward pass.

    model: in the mode in which it is to be measured. images: (N, 3, H, W); labels: (N,). Every storage counts once,
    whole, however many views of it are saved. Parameters and buffers are there anyway and do not count, the images
    do: the first layer's gradient needs them.
    """
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    sizes: dict[int, int] = {}
    alive: list[Tensor] = []  # a freed storage's address would be given out again

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            sizes[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor.detach())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = nn.functional.cross_entropy(model(images), labels)
    del loss
    return sum(sizes.values())
