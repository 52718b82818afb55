"""Which processes share their batch statistics, and the one collective that this takes: a sum over them."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from finet_deploy.errors import FinetDeployError

__all__ = ["SyncGroup", "all_reduce_sum"]


class SyncGroup:
    """The processes over which a layer takes its batch statistics; None stands for all of them.

    It is shared, not copied, when a layer is copied: an average of the weights lives in the same processes.
    """

    def __init__(self, process_group: Any = None) -> None:
        self.process_group = process_group

    def active(self) -> Any:
        """The process group to sum over, or None where there is nobody to share with."""
        if not (dist.is_available() and dist.is_initialized()):
            return None
        group = dist.group.WORLD if self.process_group is None else self.process_group
        return group if dist.get_world_size(group) > 1 else None

    def __deepcopy__(self, memo: dict[int, Any]) -> SyncGroup:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        if self.process_group is not None:
            raise FinetDeployError(
                "a layer that is synchronized over a process group of its own cannot be pickled",
                do="save its state_dict, or convert it with process_group=None",
            )
        return (SyncGroup, ())


def all_reduce_sum(group: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
    """Sums of the tensors (one dtype) over the processes of `group`, in one collective; None: as they are."""
    if group is None:
        return tensors
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat, group=group)
    sums = flat.split([tensor.numel() for tensor in tensors])
    return tuple(values.view(tensor.shape) for values, tensor in zip(sums, tensors))
