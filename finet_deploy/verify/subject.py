"""What the checks of one certificate share: the forms of the network, their outputs and the limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from finet_deploy.verify.compare import Comparison
from finet_deploy.verify.limits import Limits

__all__ = ["Deploy", "Fuse", "Subject"]

Fuse = Callable[[nn.Module], nn.Module]


@dataclass(frozen=True)
class Subject:
    """What all checks share.

    exact: the unfused net in float64; fold: the fused one; truth: exact's outputs; order: the fold's module
    paths, as executed; own: the unfused fp32 net's outputs against the truth; own_errors: its typical
    errors by input; growth: input -> factor on its fp32 limits.
    """

    exact: nn.Module
    fold: nn.Module
    fuse_fn: Fuse
    inputs: Mapping[str, Tensor]
    truth: Mapping[str, Tensor]
    order: Sequence[str]
    limits: Limits
    own: Comparison
    own_errors: Mapping[str, float]
    growth: Mapping[str, float]


@dataclass(frozen=True)
class Deploy:
    """The deploy model in judgement: as given (or made by the fuse), in float64 and in fp32, on the CPU."""

    given: nn.Module | None
    exact: nn.Module
    single: nn.Module
