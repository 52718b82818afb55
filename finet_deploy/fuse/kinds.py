"""Which modules fuse knows, and what makes a single one of them unfit for folding.

A class is known by the `forward` that it runs, not by its name alone: a subclass with a forward of its own
(weight standardization, split batch normalization) may do anything with its weight.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.utils import parametrize

from finet_deploy.fuse.fold import scalar_terms, scale_and_shift
from finet_deploy.nn.fbn import FBNConv2d, FBNLinear
from finet_deploy.nn.mimicnorm import LearnableScale, LearnableShift
from finet_deploy.nn.sync_norm import SynchronizedBatchNorm

__all__ = [
    "TREE",
    "count_normalization",
    "foldable_modules",
    "is_batch_norm",
    "is_fbn",
    "is_foldable",
    "is_host",
    "is_input_norm",
    "is_scalar",
    "norm_ranks",
    "norm_width",
    "rest_of",
    "terms_of",
    "unfit",
]

# The attributes in which a module holds what named_modules, named_parameters and named_buffers list.
TREE = ("_parameters", "_buffers", "_modules")

_INPUT_NORMS = (nn.LayerNorm, nn.GroupNorm, _InstanceNorm, nn.LocalResponseNorm, nn.RMSNorm)

# Known by qualified name: fuse does not import packages that the model itself may not need.
_FROZEN = "torchvision.ops.misc.FrozenBatchNorm2d"
_NORM_ACT = {"timm.layers.norm_act.BatchNormAct2d", "timm.layers.norm_act.FrozenBatchNormAct2d"}
# Subclasses with a forward of their own that use weight and bias just as their base class does.
_SAFE_HOSTS = {"timm.layers.conv2d_same.Conv2dSame", "timm.layers.linear.Linear"}

_HOST_FORWARDS = {
    base.forward
    for base in (
        nn.Linear,
        nn.Conv1d,
        nn.Conv2d,
        nn.Conv3d,
        nn.ConvTranspose1d,
        nn.ConvTranspose2d,
        nn.ConvTranspose3d,
    )
}
_CONV_FORWARDS = {base._conv_forward for base in (nn.Conv1d, nn.Conv2d, nn.Conv3d)}


def qualified_name(module: nn.Module) -> str:
    return f"{type(module).__module__}.{type(module).__qualname__}"


def is_fbn(module: nn.Module) -> bool:
    """A fine-grained batch normalization layer: it holds its own weight and statistics."""
    return isinstance(module, FBNConv2d | FBNLinear)


def is_batch_norm(module: nn.Module) -> bool:
    """A layer that normalizes with statistics of its own: BatchNorm*, SyncBatchNorm, Frozen*, and look-alikes."""
    if isinstance(module, _BatchNorm):
        return True
    looks_alike = {"running_mean", "running_var"} <= module._buffers.keys()
    return looks_alike and not isinstance(module, _InstanceNorm)


def is_scalar(module: nn.Module) -> bool:
    """One of MimicNorm's learnable scalars: the same factor, or the same summand, for every channel."""
    return isinstance(module, LearnableScale | LearnableShift)


def is_foldable(module: nn.Module) -> bool:
    """A layer that a convolution or linear layer beside it could take in: a batch normalization or a scalar."""
    return is_batch_norm(module) or is_scalar(module)


def is_input_norm(module: nn.Module) -> bool:
    """A layer that takes its statistics from the input that it sees: nothing that could be folded."""
    return isinstance(module, _INPUT_NORMS)


def is_host(module: nn.Module) -> bool:
    """A convolution (transposed or not) or a linear layer: something that a normalization can be folded into."""
    return isinstance(module, _ConvNd | nn.Linear)


def is_transposed(module: nn.Module) -> bool:
    return isinstance(module, _ConvTransposeNd)


def count_normalization(model: nn.Module) -> dict[str, str]:
    """Dotted path -> class name of every normalization with running statistics in `model`.

    An FBN layer is one entry; the batch normalization inside it is not counted again.
    """
    return {path: type(module).__name__ for path, module in normalizations(model)}


def normalizations(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    inside_fbn: set[int] = set()
    for path, module in model.named_modules():
        if is_fbn(module):
            inside_fbn.update(id(child) for child in module.modules())
            yield path, module
        elif is_batch_norm(module) and id(module) not in inside_fbn:
            yield path, module


def foldable_modules(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The normalizations as `count_normalization` counts them, then the scalars."""
    yield from normalizations(model)
    yield from ((path, module) for path, module in model.named_modules() if is_scalar(module))


def has_hooks(module: nn.Module) -> bool:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return any(getattr(module, kind, None) for kind in kinds)


def unfit(module: nn.Module) -> str | None:
    """Why this normalization or host must not be touched, whatever stands around it; None when nothing is wrong."""
    name = type(module).__name__
    if parametrize.is_parametrized(module) or "weight_orig" in module._parameters:
        return f"the weight of the {name} is parametrized or pruned"
    if has_hooks(module):
        return f"the {name} has hooks"
    if "forward" in vars(module) or not _runs_known_forward(module):
        return f"the {name} has a forward of its own"
    if is_host(module) and not isinstance(module._parameters.get("weight"), Tensor):
        return f"the {name} does not hold its weight as a parameter"
    if is_host(module) and not module._parameters["weight"].is_floating_point():  # type: ignore[union-attr]
        return f"the {name} has weights that are not real floating-point numbers"
    return None


def _runs_known_forward(module: nn.Module) -> bool:
    forward = type(module).forward
    norms = (_BatchNorm.forward, nn.SyncBatchNorm.forward, SynchronizedBatchNorm.forward)
    if isinstance(module, _BatchNorm) and forward in norms:
        return True
    if qualified_name(module) in _NORM_ACT | _SAFE_HOSTS | {_FROZEN}:
        return True
    if is_scalar(module):
        return forward in (LearnableScale.forward, LearnableShift.forward)
    if isinstance(module, FBNConv2d):
        return forward is FBNConv2d.forward
    if isinstance(module, FBNLinear):
        return forward is FBNLinear.forward
    if isinstance(module, _ConvNd) and not isinstance(module, _ConvTransposeNd):
        return forward in _HOST_FORWARDS and type(module)._conv_forward in _CONV_FORWARDS
    return forward in _HOST_FORWARDS


def norm_width(norm: nn.Module) -> int:
    """Number of channels of a normalization."""
    return int(norm._buffers["running_mean"].numel())  # type: ignore[union-attr]


def norm_ranks(norm: nn.Module) -> frozenset[int]:
    """Ranks of the input, batch axis included, that the normalization accepts; its channels are on axis 1."""
    if isinstance(norm, nn.BatchNorm1d):
        return frozenset({2, 3})
    if isinstance(norm, nn.BatchNorm3d):
        return frozenset({5})
    if isinstance(norm, nn.SyncBatchNorm | SynchronizedBatchNorm):
        return frozenset({2, 3, 4, 5})
    return frozenset({4})


def terms_of(norm: nn.Module, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """fp64 (width,) scale, mean, beta of a normalization in eval mode or of a scalar; see `scale_and_shift`."""
    if isinstance(norm, LearnableScale):
        return scalar_terms(norm.scale, None, width)
    if isinstance(norm, LearnableShift):
        return scalar_terms(None, norm.shift, width)
    tensors = {**norm._buffers, **norm._parameters}
    mean, var = tensors["running_mean"], tensors["running_var"]
    # Both are there: check_fusible has refused layers without running statistics.
    return scale_and_shift(mean, var, tensors.get("weight"), tensors.get("bias"), float(norm.eps))  # type: ignore[arg-type]


def rest_of(norm: nn.Module) -> nn.Module:
    """What takes a normalization's place: Identity, or the drop and activation that timm's BatchNormAct2d carries."""
    if qualified_name(norm) not in _NORM_ACT:
        return nn.Identity()
    drop, act = norm.get_submodule("drop"), norm.get_submodule("act")
    if isinstance(drop, nn.Identity):
        return act
    return nn.Sequential(drop, act)
