"""Comparing networks by their weights: one rounding of a float64 fold, and "nothing was changed"."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from finet_deploy.verify.certificate import Check, number
from finet_deploy.verify.limits import Limits

__all__ = ["check_rounded_once", "fingerprint", "same_state", "state_difference"]

NAME = "deploy/weights"


def fingerprint(model: nn.Module) -> str:
    """SHA-256 over what fusing could change: modules, their classes and modes, every tensor's bytes."""
    digest = hashlib.sha256()
    for path, module in model.named_modules():
        digest.update(f"{path}:{type(module).__qualname__}:{module.training};".encode())
    for name, tensor in [*model.named_parameters(), *model.state_dict().items()]:
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}:{tensor.requires_grad};".encode())
    for tensor in model.state_dict().values():
        digest.update(memoryview(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()))
    return digest.hexdigest()


def state_difference(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> str | None:
    """How the names or shapes of two state dicts differ; None when they are the same."""
    for name in b:
        if name not in a:
            return f"{name} is missing"
    for name, tensor in a.items():
        if name not in b:
            return f"{name} is extra"
        if tensor.shape != b[name].shape:
            return f"{name} has shape {tuple(tensor.shape)}, the fold {tuple(b[name].shape)}"
    return None


def same_state(a: nn.Module, b: nn.Module) -> bool:
    """The same names, shapes and, bit for bit, values."""
    ours, theirs = a.state_dict(), b.state_dict()
    if state_difference(ours, theirs) is not None:
        return False
    return all(
        tensor.dtype == theirs[name].dtype and tensor.equal(theirs[name]) for name, tensor in ours.items()
    )


def check_rounded_once(deploy: nn.Module, fold: nn.Module, order: Sequence[str], limits: Limits) -> Check:
    """Are the deploy model's weights the float64 fold, rounded once to their own dtype?

    This catches what outputs cannot: an eps left out beside a variance of 1 moves an fp32 net by half of what
    rounding does, and every weight by dozens of units in the last place. `order`: module paths as executed,
    so that the first wrong one is named. The state dicts must have the same names and shapes.
    """
    theirs = fold.state_dict()
    excess = {name: _excess(w, theirs[name], limits.weight_slack) for name, w in deploy.state_dict().items()}
    rank = {path: position for position, path in enumerate(order)}
    wrong = sorted(
        (name for name, value in excess.items() if not value <= 1.0),
        key=lambda name: rank.get(name.rpartition(".")[0], len(rank)),
    )
    worst = max(excess, key=lambda name: excess[name], default=None)
    if wrong:
        message = (
            f"{wrong[0]} is not the float64 fold rounded once ({len(wrong)} of {len(excess)} tensors are not)"
        )
    else:
        message = f"all {len(excess)} tensors are the float64 fold, rounded once"
    return Check(
        name=NAME,
        stage="deploy",
        passed=not wrong and bool(excess),
        message=message,
        figures={
            "worst_tensor": worst,
            "worst_share_of_bound": number(excess[worst]) if worst is not None else None,
            "first_departing_module": wrong[0].rpartition(".")[0] if wrong else None,
        },
        limits={"worst_share_of_bound": 1.0, "weight_slack": limits.weight_slack},
    )


def _excess(w: Tensor, f: Tensor, slack: float) -> float:
    """The largest `|w - f|` as a share of the bound on it; infinite for NaN. Integers must be equal.

    Bound per element: one unit in the last place of w's dtype at f, plus `slack` times the tensor's largest
    element; a denormal may also have been flushed to zero.
    """
    if w.numel() == 0:
        return 0.0
    if not (w.is_floating_point() and f.is_floating_point()):
        return 0.0 if torch.equal(w.cpu(), f.cpu()) else math.inf
    info = torch.finfo(w.dtype)
    w, f = w.detach().cpu().double(), f.detach().cpu().double()
    magnitude = f.abs()
    _, exponent = torch.frexp(magnitude)  # magnitude = m * 2**exponent, 0.5 <= m < 1
    ulp = torch.ldexp(torch.full_like(f, info.eps), exponent - 1)
    bound = ulp.clamp_min(info.tiny * info.eps) + slack * magnitude.max()
    bound = torch.where(magnitude < info.tiny, bound + info.tiny, bound)
    share = (w - f).abs() / bound
    return math.inf if bool(share.isnan().any()) else float(share.max())
