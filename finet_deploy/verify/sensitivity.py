"""The check of the check: would a wrong fuse be noticed on this very model and these inputs?

A comparison can pass on anything. With gamma, beta, mean and variance all drawn from U(0, 0.1), a published
recipe, a network gives the same output for every input, and zeroed kernels pass. So the outputs of different
inputs must lie far apart, and deliberately broken copies of the fused network must be rejected, by the same
comparator that judges the real one.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from finet_deploy.fuse import count_normalization
from finet_deploy.nn import FBNConv2d, FBNLinear
from finet_deploy.verify.certificate import Check, check_outputs, number
from finet_deploy.verify.compare import compare
from finet_deploy.verify.forward import ordinary_inputs, run
from finet_deploy.verify.subject import Subject

__all__ = ["BREAKS", "check_breaks", "check_distinct_outputs"]

STAGE = "sensitivity"
BREAKS = ("zeroed_kernel", "dropped_bias", "swapped_groups", "ignored_eps", "flipped_mean")
MAX_LAYERS = (
    4  # layers in which a break is tried before it counts as not rejected: one may be dead by its weights
)
MAX_INPUTS = 2  # inputs that the broken networks run on
LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)

Change = Callable[[nn.Module], "tuple[nn.Parameter, Tensor] | None"]


def check_distinct_outputs(subject: Subject) -> Check:
    """Do different ordinary inputs give outputs that lie far more than the tolerance apart?

    Distance: `||a - b|| / max(||a||, ||b||)`, over all pairs; the nearest pair counts.
    """
    names = ordinary_inputs(subject.inputs)
    needed = subject.limits.sensitivity_factor * subject.limits.fp32
    distances = {
        (a, b): _distance(subject.truth[a], subject.truth[b])
        for a, b in itertools.combinations(names, 2)
        if subject.truth[a].shape == subject.truth[b].shape
    }
    nearest = min(distances, key=lambda pair: distances[pair], default=None)
    distance = distances[nearest] if nearest is not None else None
    if nearest is None:
        message = "needs two different inputs that are neither constant nor extreme: noise, photographs"
    else:
        a, b = nearest
        passed = distances[nearest] >= needed
        wrong = (
            "; the network hardly depends on its input (calibrate its batch norms, or load trained weights)"
        )
        message = f"outputs of {a} and {b}, the nearest pair, are {distance:.2g} apart, needed {needed:g}"
        message += "" if passed else wrong
    return Check(
        name=f"{STAGE}/inputs",
        stage=STAGE,
        passed=distance is not None and distance >= needed,
        message=message,
        figures={"smallest_distance": number(distance), "ordinary_inputs": names},
        limits={"smallest_distance": needed},
    )


def _distance(a: Tensor, b: Tensor) -> float:
    scale = max(float(a.abs().max()), float(b.abs().max()))
    if scale == 0.0:
        return 0.0
    a, b = a / scale, b / scale
    return float((a - b).norm() / torch.maximum(a.norm(), b.norm()))


def check_breaks(subject: Subject) -> list[Check]:
    """One check for each of BREAKS: passed when the broken network is rejected."""
    swap = _swapped_groups(subject)
    return [
        _check_weight_break(
            subject, "zeroed_kernel", "a kernel set to zero", _layers(subject), _zeroed_kernel
        ),
        _check_weight_break(subject, "dropped_bias", "a bias left out", _layers(subject), _dropped_bias),
        _check_weight_break(subject, "swapped_groups", "two groups of inputs swapped", *swap),
        _check_norm_break(subject, "ignored_eps", "eps left out of the fold", _without_eps, _eps_weight),
        _check_norm_break(subject, "flipped_mean", "the sign of the mean flipped", _flip_mean, _mean_weight),
    ]


def _probes(subject: Subject) -> dict[str, Tensor]:
    """The first and the last ordinary inputs (noise and a photograph, as usually ordered), or any."""
    names = ordinary_inputs(subject.inputs) or list(subject.inputs)
    chosen = names if len(names) <= MAX_INPUTS else [*names[: MAX_INPUTS - 1], names[-1]]
    return {name: subject.inputs[name] for name in chosen}


def _error_of(subject: Subject, broken: nn.Module, limit: float) -> tuple[bool, float]:
    """(rejected, error) of a broken net, from the comparator and the judge that the real one meets."""
    probes = _probes(subject)
    comparison = compare({name: subject.truth[name] for name in probes}, run(broken, probes, torch.float64))
    return check_outputs(
        "broken", comparison, limit=limit, growth=subject.growth
    ).passed is not True, comparison.max_error


def _verdict(
    name: str, what: str, rejected: bool, error: float, limit: float, layers: Sequence[str]
) -> Check:
    where = f" in {layers[-1]}" if layers else ""
    if rejected:
        message = f"{what}{where}: rejected, error {error:.2g}, limit {limit:g}"
    else:
        tried = f" in any of {', '.join(layers)}" if layers else ""
        message = f"{what}{tried}: NOT rejected, so the comparison proves nothing here"
    return Check(
        name=f"{STAGE}/{name}",
        stage=STAGE,
        passed=rejected,
        message=message,
        figures={"error": number(error), "layer": layers[-1] if layers else None, "tried": list(layers)},
        limits={"rejected_above": limit},
    )


def _not_applicable(name: str, reason: str) -> Check:
    return Check(
        name=f"{STAGE}/{name}", stage=STAGE, passed=None, optional=True, message="not run", reason=reason
    )


# Breaks of one layer's weights


def _layers(subject: Subject) -> dict[str, nn.Module]:
    """Convolutions and linear layers as executed, without the last if it can be: its faults always show."""
    modules = {path: subject.fold.get_submodule(path) for path in subject.order}
    layers: dict[str, nn.Module] = {
        path: module
        for path, module in modules.items()
        if isinstance(module, LAYERS) and isinstance(module._parameters.get("weight"), nn.Parameter)
    }
    if len(layers) > 1:
        layers.popitem()
    return layers


def _check_weight_break(
    subject: Subject, name: str, what: str, layers: Mapping[str, nn.Module], change: Change
) -> Check:
    """Break one layer after another (first, then spread over the depth) until a break is rejected.

    A layer may be dead by its weights (a residual branch that starts at zero): a fault there changes nothing.
    """
    applicable = [path for path, layer in layers.items() if change(layer) is not None]
    if not applicable:
        return _not_applicable(name, "no layer of this network could have this fault")
    last = len(applicable) - 1
    spread = dict.fromkeys(applicable[last * i // (MAX_LAYERS - 1)] for i in range(MAX_LAYERS))
    limit = subject.limits.fp32
    tried: list[str] = []
    error, rejected = 0.0, False
    for path in spread:
        tried.append(path)
        with _changed(layers[path], change):
            rejected, error = _error_of(subject, subject.fold, limit)
        if rejected:
            break
    return _verdict(name, what, rejected, error, limit, tried)


@contextlib.contextmanager
def _changed(layer: nn.Module, change: Change) -> Iterator[None]:
    """`layer` with its change; its own values again afterwards. In place: a copy of the net costs more."""
    changed = change(layer)
    if changed is None:
        yield
        return
    parameter, value = changed
    before = parameter.detach().clone()
    with torch.no_grad():
        parameter.copy_(value)
    try:
        yield
    finally:
        with torch.no_grad():
            parameter.copy_(before)


def _parameter(layer: nn.Module, name: str) -> nn.Parameter | None:
    return layer._parameters.get(name)


def _zeroed_kernel(layer: nn.Module) -> tuple[nn.Parameter, Tensor] | None:
    weight = _parameter(layer, "weight")
    return (weight, torch.zeros_like(weight)) if weight is not None and bool(weight.any()) else None


def _dropped_bias(layer: nn.Module) -> tuple[nn.Parameter, Tensor] | None:
    bias = _parameter(layer, "bias")
    return (bias, torch.zeros_like(bias)) if bias is not None and bool(bias.any()) else None


def _swapped_groups(subject: Subject) -> tuple[dict[str, nn.Module], Change]:
    """The layers folded from FBN with two or more groups; without any, all, their inputs in two halves."""
    layers = _layers(subject)
    report = getattr(subject.fold, "fuse_report", None)
    into = {fold.path: fold.into for fold in report.folded} if report is not None else {}
    groups: dict[int, int] = {}
    for path, module in subject.exact.named_modules():
        layer = layers.get(into.get(path, path))
        if isinstance(module, FBNConv2d | FBNLinear) and module.num_groups > 1 and layer is not None:
            groups[id(layer)] = module.num_groups
    if groups:
        layers = {path: layer for path, layer in layers.items() if id(layer) in groups}

    def swap(layer: nn.Module) -> tuple[nn.Parameter, Tensor] | None:
        weight = _parameter(layer, "weight")
        if weight is None or weight.shape[1] < 2:
            return None
        width = weight.shape[1] // groups.get(id(layer), 2)
        swapped = weight.detach().clone()
        swapped[:, :width], swapped[:, width : 2 * width] = weight[:, width : 2 * width], weight[:, :width]
        return None if torch.equal(swapped, weight) else (weight, swapped)

    return layers, swap


# Breaks of the fold itself: the unfused net with other norms, fused, against the right one


def _norms(model: nn.Module, kept: Mapping[str, str]) -> Iterator[nn.Module]:
    """The norms with running statistics that the fuse folded away."""
    for path, module in model.named_modules():
        known = isinstance(module._buffers.get("running_var"), Tensor) and isinstance(
            module._buffers.get("running_mean"), Tensor
        )
        if known and path not in kept and not isinstance(module, nn.modules.instancenorm._InstanceNorm):
            yield module


def _check_norm_break(
    subject: Subject,
    name: str,
    what: str,
    change: Callable[[nn.Module], None],
    weight: Callable[[nn.Module], float],
) -> Check:
    """Change every folded norm of a copy, fuse it, and expect the result to be rejected.

    `weight`: by how much the change moves one norm's output, about; where that is near the algebra's limit
    for all of them, the fault would be none for this network.
    """
    limit = subject.limits.algebra_fp64
    kept = count_normalization(subject.fold)
    if max((weight(norm) for norm in _norms(subject.exact, kept)), default=0.0) < 10 * limit:
        return _not_applicable(name, "no folded normalization whose output would change by it")
    wrong = copy.deepcopy(subject.exact)
    for norm in _norms(wrong, kept):
        change(norm)
    rejected, error = _error_of(subject, subject.fuse_fn(wrong), limit)
    return _verdict(name, what, rejected, error, limit, [])


def _eps_weight(norm: nn.Module) -> float:
    """About eps / (2 var), the relative change of 1/sqrt(var + eps); 0 where a variance of 0 needs its eps."""
    eps, var = float(getattr(norm, "eps", 0.0)), norm.get_buffer("running_var")
    smallest = float(var.min()) if var.numel() else 0.0
    return eps / (2 * smallest) if smallest > 0.0 else 0.0


def _without_eps(norm: nn.Module) -> None:
    if _eps_weight(norm) > 0.0:
        norm.eps = 0.0  # type: ignore[assignment]


def _mean_weight(norm: nn.Module) -> float:
    """The largest mean, in standard deviations."""
    mean, var = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    if not mean.numel():
        return 0.0
    largest = float((mean.abs() / (var + float(getattr(norm, "eps", 0.0))).sqrt()).max())
    return largest if math.isfinite(largest) else 0.0


def _flip_mean(norm: nn.Module) -> None:
    norm.get_buffer("running_mean").neg_()
