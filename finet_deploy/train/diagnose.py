"""Where a NaN came from: the batch that made it is run once more, and the layers are watched."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

from finet_deploy.errors import FinetDeployError

__all__ = ["NotFinite", "first_bad_gradient", "first_bad_output", "first_bad_tensor", "restored"]


class NotFinite(FinetDeployError):
    """A NaN or an infinity, and where it was first seen: `culprit`."""

    def __init__(self, what: str, culprit: str) -> None:
        self.what, self.culprit = what, culprit
        super().__init__(f"{what}: {culprit}")


def first_bad_output(model: nn.Module, run: Callable[[], object]) -> str | None:
    """The first module, in the order of computing, whose output has a NaN or an infinity while `run()` computes.

    Innermost first: a block is named only when no layer in it is at fault. None when all outputs are finite.
    The weights, running statistics and generators are left as they were.
    """
    found: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def look(_module: nn.Module, _arguments: object, output: object) -> None:
            if not found and isinstance(output, Tensor) and not bool(output.isfinite().all()):
                found.append(name)

        return look

    hooks = [module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name]
    try:
        with restored(model), torch.no_grad():
            run()
    finally:
        for hook in hooks:
            hook.remove()
    return found[0] if found else None


@contextlib.contextmanager
def restored(model: nn.Module) -> Iterator[None]:
    """Afterwards the model's parameters, buffers and the random generators are as they were before."""
    tensors = [*model.parameters(), *model.buffers()]
    copies = [tensor.detach().clone() for tensor in tensors]
    try:
        with torch.random.fork_rng(devices=_cuda_devices(model)):
            yield
    finally:
        with torch.no_grad():
            for tensor, copy in zip(tensors, copies):
                tensor.copy_(copy)


def _cuda_devices(model: nn.Module) -> list[torch.device]:
    return sorted({p.device for p in model.parameters() if p.device.type == "cuda"}, key=str)


def first_bad_gradient(model: nn.Module) -> str | None:
    """The parameter nearest to the loss whose gradient is not finite: from there on back all may be infected."""
    bad = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and not bool(parameter.grad.isfinite().all())
    ]
    return bad[-1] if bad else None


def first_bad_tensor(tensors: Iterable[tuple[str, Tensor]]) -> str | None:
    """The name of the first of these tensors that has a NaN or an infinity."""
    for name, tensor in tensors:
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            return name
    return None
