"""What a model must be before it can be fused: in eval mode, with finite weights and running statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.fuse.kinds import is_batch_norm, is_fbn

__all__ = ["check_fusible"]


def check_fusible(model: nn.Module) -> None:
    """Raise, naming the first offending module by its dotted path, unless `model` can be fused.

    UsageError: a module in train mode, a batch normalization without running statistics, weights that were never
    made (meta device, lazy modules). FinetDeployError: NaN or infinite weights or statistics, a negative variance.
    """
    if isinstance(model, torch.jit.ScriptModule):
        raise UsageError(
            "a TorchScript module has no module tree to fold", do="fuse the nn.Module it came from"
        )
    _check_mode(model)
    for path, module in model.named_modules():
        for name, tensor in module._parameters.items():
            if tensor is not None:
                _check_tensor(f"{path}.{name}".lstrip("."), tensor)
        if is_batch_norm(module):
            _check_statistics(path, module)


def _check_mode(model: nn.Module) -> None:
    training = [(path, module) for path, module in model.named_modules() if module.training]
    if not training:
        return
    # The module whose output train mode changes says more than the container around it.
    telling = [(path, module) for path, module in training if is_fbn(module) or is_batch_norm(module)]
    telling += [(path, m) for path, m in training if "drop" in type(m).__name__.lower()]
    path, module = (telling or training)[0]
    raise UsageError(
        f"{type(module).__name__} is in train mode",
        where=path or "(the model itself)",
        do="call model.eval() first",
    )


def _check_tensor(path: str, tensor: Tensor) -> None:
    if is_lazy(tensor):
        raise UsageError(
            "weights are not made yet", where=path, do="run one batch through the lazy modules first"
        )
    if tensor.is_meta:
        raise UsageError("weights have no values (meta device)", where=path, do="load weights first")
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise FinetDeployError(
            "weights are not finite (NaN or infinity)",
            where=path,
            do="use a checkpoint from before training diverged",
        )


def _check_statistics(path: str, norm: nn.Module) -> None:
    mean, var = norm._buffers.get("running_mean"), norm._buffers.get("running_var")
    if mean is None or var is None:
        raise UsageError(
            f"{type(norm).__name__} has no running statistics",
            where=path,
            do="train with track_running_stats=True: without them its output depends on the batch",
        )
    for name, tensor in (("running_mean", mean), ("running_var", var)):
        _check_tensor(f"{path}.{name}", tensor)
    eps = float(getattr(norm, "eps", 0.0))
    if not bool((var.double() + eps > 0).all()):
        raise FinetDeployError(
            "running variance plus eps is not positive",
            where=f"{path}.running_var",
            do="use a checkpoint with valid statistics",
        )
