"""Post-training quantization: equalize, round, and find what must stay in fp32, each decided by a measurement."""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec
import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from finet_deploy.errors import FinetDeployError
from finet_deploy.quantize.calibration import Calibration
from finet_deploy.quantize.equalize import Changed, equalize
from finet_deploy.quantize.graph import Layer, graph_of, layers, quantized_values, readers
from finet_deploy.quantize.observe import observe
from finet_deploy.quantize.rounding import round_layers
from finet_deploy.quantize.simulate import layer_sqnr, outputs, simulated_sqnr

__all__ = ["STRENGTHS", "LayerReport", "Quantized", "quantize_network"]

STRENGTHS = (0.5, 0.75, 1.0)  # of equalization, tried beside none
TRIAL_IMAGES = 16  # on which the strengths are compared; the chosen one then sees all images
MAX_FP32 = 8  # operators that a fallback may leave in fp32: beyond that it is no int8 network any more
SEARCHED = 24  # noisiest operators among which a fallback searches
MARGIN_DB = 1.0  # the simulation has to keep the limit by this much, since it is one
EXACT_DB = 90.0  # equalization is exact: what fp32 rounding leaves is 110 dB and more

Tell = Callable[[str], None]


class LayerReport(msgspec.Struct, frozen=True, kw_only=True):
    """One layer. sqnr_db: of its output when all before it is exact; None where nothing is lost. weight_spread: the
    largest over the median of its rows' largest weights. precision: `int8` or `float32`."""

    path: str
    sqnr_db: float | None
    weight_spread: float
    precision: str


@dataclass(frozen=True)
class Quantized:
    """graph: equalized, its weights rounded: fp32 tensors that an exporter rounds once more without a change.

    strength: of the equalization, None for none. candidates: what was tried -> simulated SQNR in dB. fp32: names of
    the graph's operators that stay in fp32, and their module paths. simulated_db: on the held-out images.
    """

    graph: GraphModule
    calibration: Calibration
    strength: float | None
    changed: Changed
    candidates: dict[str, float]
    fp32: frozenset[str]
    fp32_paths: tuple[str, ...]
    layers: tuple[LayerReport, ...]
    simulated_db: float

    @property
    def worst(self) -> LayerReport | None:
        """The layer with the lowest SQNR of its own."""
        known = [layer for layer in self.layers if layer.sqnr_db is not None]
        return min(known, key=lambda layer: layer.sqnr_db or 0.0, default=None)


def quantize_network(
    program: ExportedProgram, calibration: Calibration, *, min_sqnr_db: float, tell: Tell = lambda _step: None
) -> Quantized:
    """A traced network (in eval mode, batch 1) as a graph that is fit for 8 bits; the network is left as it is.

    min_sqnr_db: below it (on held-out images, simulated) the operators that hurt most stay in fp32, up to `MAX_FP32`.
    Raises FinetDeployError for images of another shape than the network's input, and for values that are not finite.
    """
    base = graph_of(program)
    _check_shape(base, calibration)
    images, held = list(calibration.images), list(calibration.held_out)
    truth = outputs(base, held)
    if not all(bool(torch.isfinite(y).all()) for y in truth):
        raise FinetDeployError("the network's own outputs are NaN or infinite", do="check its weights")
    tell("equalize")
    few = images[:: max(1, len(images) // TRIAL_IMAGES)]
    tried = {"none": _round(base, None, few, held, truth)}
    tried |= {f"{s:g}": _round(base, s, few, held, truth) for s in STRENGTHS}
    best = max(tried, key=lambda name: tried[name].sqnr_db)
    chosen, fp32 = _round(base, tried[best].strength, images, held, truth), frozenset[str]()
    if chosen.sqnr_db < min_sqnr_db + MARGIN_DB:
        tell("search what to leave in fp32")
        fp32 = _fallback(chosen, images, held, truth, min_sqnr_db)
    if fp32:
        chosen = _round(base, chosen.strength, images, held, truth, fp32)
    return Quantized(
        chosen.graph,
        calibration,
        chosen.strength,
        chosen.changed,
        {name: trial.sqnr_db for name, trial in tried.items()},
        fp32,
        tuple(_paths(chosen.graph, fp32)),
        tuple(_layer_reports(chosen, images, fp32)),
        chosen.sqnr_db,
    )


def _check_shape(graph: GraphModule, calibration: Calibration) -> None:
    wanted = next(node.meta["val"].shape for node in graph.graph.nodes if node.op == "placeholder")
    found = calibration.images.shape
    if tuple(found[1:]) != tuple(wanted[1:]):
        raise FinetDeployError(
            f"calibration images are {tuple(found[1:])}, the network takes {tuple(wanted[1:])}",
            where=calibration.source,
            do="prepare them with the network's own preprocessing",
        )


@dataclass(frozen=True)
class _Trial:
    graph: GraphModule
    strength: float | None
    changed: Changed
    originals: dict[str, tuple[Tensor, Tensor]]
    sqnr_db: float


def _round(
    base: GraphModule,
    strength: float | None,
    images: Sequence[Tensor],
    held: Sequence[Tensor],
    truth: Sequence[Tensor],
    fp32: frozenset[str] = frozenset(),
) -> _Trial:
    graph, changed = copy.deepcopy(base), Changed(0, 0)
    if strength is not None:
        changed = equalize(graph, observe(graph, images), strength)
        _check_exact(graph, held, truth)
    originals = {layer.node.name: (layer.weight.clone(), layer.bias.clone()) for layer in layers(graph)}
    round_layers(graph, images, fp32)
    sqnr = simulated_sqnr(graph, observe(graph, images), held, truth, fp32)
    return _Trial(graph, strength, changed, originals, sqnr)


def _check_exact(graph: GraphModule, held: Sequence[Tensor], truth: Sequence[Tensor]) -> None:
    """Equalization must not change the function: a network for which it does has something that it misread."""
    for y, found in zip(truth, outputs(graph, held)):
        error = float((found.double() - y.double()).norm() / y.double().norm().clamp_min(1e-300))
        if not error <= 10 ** (-EXACT_DB / 20):
            raise FinetDeployError(
                f"equalization changed the network's outputs (relative error {error:.1e})",
                do="report this network; its graph has an operator that was misread",
            )


def _fallback(
    trial: _Trial, images: Sequence[Tensor], held: Sequence[Tensor], truth: Sequence[Tensor], limit: float
) -> frozenset[str]:
    """Greedy: the operators without whose rounding the simulated SQNR is best, one after another, until it keeps the
    limit. Each is left in fp32 with those that read it, so that its output is not rounded either."""
    seen = observe(trial.graph, images)
    values = {node.name: node for node in quantized_values(trial.graph) if node.op == "call_function"}
    fp32, sqnr = frozenset[str](), trial.sqnr_db
    units = {name: _unit(trial.graph, node) for name, node in values.items()}
    few = held[:2]
    gains = {name: simulated_sqnr(trial.graph, seen, few, truth[:2], unit) for name, unit in units.items()}
    for name in sorted(gains, key=lambda name: -gains[name])[:SEARCHED]:
        if sqnr >= limit + MARGIN_DB or len(fp32 | units[name]) > MAX_FP32:
            break
        further = fp32 | units[name]
        reached = simulated_sqnr(trial.graph, seen, held, truth, further)
        if reached > sqnr:
            fp32, sqnr = further, reached
    return fp32


def _unit(graph: GraphModule, node: Node) -> frozenset[str]:
    """An operator, the layer or sum that an activation belongs to, and the operators that read its output."""
    first = node.args[0] if node.args and isinstance(node.args[0], Node) else None
    own = {node.name}
    if first is not None and len(first.users) == 1 and first.op == "call_function":
        own.add(first.name)
    return frozenset(own | {user.name for user in readers(node)})


def _paths(graph: GraphModule, fp32: frozenset[str]) -> list[str]:
    known = {layer.node.name: layer.path for layer in layers(graph)}
    return [known.get(node.name, node.name) for node in graph.graph.nodes if node.name in fp32]


def _layer_reports(trial: _Trial, images: Sequence[Tensor], fp32: frozenset[str]) -> list[LayerReport]:
    few = images[:4]
    found = layer_sqnr(trial.graph, trial.originals, observe(trial.graph, images), few)
    return [
        LayerReport(
            path=layer.path,
            sqnr_db=found.get(layer.node.name),
            weight_spread=_spread(layer),
            precision="float32" if layer.node.name in fp32 else "int8",
        )
        for layer in layers(trial.graph)
    ]


def _spread(layer: Layer) -> float:
    largest = layer.weight.flatten(1).abs().amax(1).tolist()
    middle = statistics.median(largest)
    spread = max(largest) / middle if middle > 0 else 1.0
    return spread if math.isfinite(spread) else 1.0
