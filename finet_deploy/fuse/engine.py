"""`fuse`: a copy of a model whose normalizations are folded into its convolutions and linear layers."""

from __future__ import annotations

import inspect

import torch
from torch import Tensor, fx, nn

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.fuse.check import check_fusible
from finet_deploy.fuse.deploy import to_deploy_forms
from finet_deploy.fuse.graph import CallGraph, join, operation
from finet_deploy.fuse.kinds import count_normalization, is_fbn, is_foldable, is_input_norm
from finet_deploy.fuse.plan import Plan, make_plan
from finet_deploy.fuse.reparameterize import Entries, merge_branches, merge_by_fuse, replace_module
from finet_deploy.fuse.report import Folded, FuseReport, Kept
from finet_deploy.fuse.source import reaches_inside
from finet_deploy.fuse.trace import (
    check_runs,
    export_graph,
    independent_copy,
    same_outputs,
    structural_copy,
    symbolic_graph,
    trace_text,
)
from finet_deploy.nn.fbn import FBNConv2d, FBNLinear
from finet_deploy.nn.mimicnorm import bake_weight_mean, is_reparametrized

__all__ = ["fuse"]


def fuse(model: nn.Module, *, example_inputs: tuple[Tensor, ...] | None = None) -> nn.Module:
    """A copy of `model`, in eval mode, with every normalization folded whose fold is provably the same function.

    So are MimicNorm's learnable scalars, and its re-parametrized weights are baked.

    The copy has the same class and module tree: a convolution keeps its path and gets new weight and bias, a folded
    normalization becomes `nn.Identity` (or the activation that it carried), an FBN layer becomes `nn.Conv2d` or
    `nn.Linear`, Finet's Squeeze-Excite takes its deploy form. Folds are computed in fp64 and rounded once; dtype,
    device and `requires_grad` are kept; `model` is not changed. What the call graph cannot prove is left alone.
    `.fuse_report` (a `FuseReport`) says what was folded into what, and what was not and why. Fusing a fused model
    changes nothing.

    example_inputs: what `model(*example_inputs)` takes. Needed for a network that `torch.fx` cannot trace, and to
    prove the fold of a BatchNorm1d after a linear layer whose input may have two or three axes. Where the network's
    code branches on its input, the proof holds for inputs that take the same branches as these.
    Raises UsageError in train mode, without running statistics (see `check_fusible`) and for inputs that the model
    does not take; FinetDeployError for weights that are not finite.
    """
    check_fusible(model)
    inputs = _checked_inputs(example_inputs)
    try:
        fused = independent_copy(model)
    except Exception as error:
        raise FinetDeployError(
            f"the model cannot be copied: {error}", do="drop stored activations first"
        ) from error
    if inputs is not None:
        check_runs(fused, inputs)
    baked = _bake(fused)
    fused, merged = merge_branches(fused, inputs)
    fused, merged, graphs, plan = _plan(fused, merged, inputs)
    fused, plan = _apply(fused, graphs, plan, inputs)
    fused, rewritten = to_deploy_forms(fused)
    fused.eval()
    fused.fuse_report = _report(fused, graphs, plan, merged, baked + rewritten)  # type: ignore[assignment]
    return fused


def _bake(model: nn.Module) -> tuple[Folded, ...]:
    """Put the zero-mean weights that a re-parametrized MimicNorm network computes in the place of their parameters."""
    paths = [path for path, module in model.named_modules() if is_reparametrized(module)]
    bake_weight_mean(model)
    return tuple(Folded(path=path, kind="ZeroMean", into=path) for path in paths)


def _checked_inputs(example_inputs: object) -> tuple[Tensor, ...] | None:
    if example_inputs is None:
        return None
    if not isinstance(example_inputs, tuple | list):
        raise UsageError("example_inputs is not a tuple of tensors", do="pass (x,)")
    return tuple(example_inputs)


def _plan(
    model: nn.Module, merged: Entries, inputs: tuple[Tensor, ...] | None
) -> tuple[nn.Module, Entries, list[CallGraph], Plan]:
    graphs, unproven = _graphs(model, inputs)
    plan = make_plan(model, graphs, unproven)
    model, more = merge_by_fuse(model, list(plan.kept), inputs)
    if more:
        graphs, unproven = _graphs(model, inputs)
        plan = make_plan(model, graphs, unproven)
    return model, (merged[0] + more, merged[1]), graphs, plan


def _graphs(model: nn.Module, inputs: tuple[Tensor, ...] | None) -> tuple[list[CallGraph], str]:
    """Call graphs of the whole model, or else of its largest traceable parts, and why there is no more."""
    if is_fbn(model) or is_foldable(model):
        return [], "a normalization alone has no layer to be folded into"
    graph, reason = symbolic_graph(model, "", inputs)
    if graph is not None:
        return [graph], ""
    if not any(is_foldable(module) for module in model.modules()):
        return [], ""
    if inputs is not None:
        graph, export_reason = export_graph(model, inputs)
        if graph is not None:
            return [graph], ""
        reason = f"{reason}; {export_reason}"
    else:
        reason = f"{reason}; give example_inputs"
    return _partial_graphs(model, "", model), f"no call graph proves that its fold is legal: {reason}"


def _partial_graphs(root: nn.Module, prefix: str, module: nn.Module) -> list[CallGraph]:
    graphs: list[CallGraph] = []
    for name, child in module.named_children():
        path = join(prefix, name)
        if not any(is_foldable(inner) for inner in child.modules()) or is_foldable(child) or is_fbn(child):
            continue
        graph = None
        if _plain_signature(child) and reaches_inside(root, path) is None:
            graph, _ = symbolic_graph(child, path, None)
        graphs += _partial_graphs(root, path, child) if graph is None else [graph]
    return graphs


def _plain_signature(module: nn.Module) -> bool:
    """Only then is a call of the part the same as its trace: no arguments that may be left out."""
    parameters = inspect.signature(module.forward).parameters.values()
    return all(p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD for p in parameters)


def _apply(
    model: nn.Module, graphs: list[CallGraph], plan: Plan, inputs: tuple[Tensor, ...] | None
) -> tuple[nn.Module, Plan]:
    """Substitute the folded layers, after a rehearsal: the network's own code must not notice. Returns what was done.

    The rehearsal is on a copy that shares the tensors. A network that asks for a normalization's class or attributes
    traces otherwise once it is gone; then nothing is folded.
    """
    if not plan.folded:
        return model, plan
    rehearsal = _substitute(structural_copy(model), plan)
    if all(_unnoticed(model, rehearsal, graph, inputs) for graph in graphs):
        return _substitute(model, plan), plan
    reason = "the network's own code runs otherwise when its normalizations are replaced"
    kept = {path: Kept(path=path, kind=entry.kind, reason=reason) for path, entry in plan.folded.items()}
    return model, Plan(kept={**plan.kept, **kept})


def _unnoticed(
    model: nn.Module, changed: nn.Module, graph: CallGraph, inputs: tuple[Tensor, ...] | None
) -> bool:
    if graph.is_export:
        return inputs is not None and same_outputs(model, changed, inputs)
    before, after = model.get_submodule(graph.prefix), changed.get_submodule(graph.prefix)
    leaves = _leaf_paths(graph)
    given = None if graph.prefix else inputs
    return trace_text(before, leaves, given) == trace_text(after, leaves, given)


def _leaf_paths(graph: CallGraph) -> list[str]:
    start = len(graph.prefix) + 1 if graph.prefix else 0
    return [path[start:] for path in graph.path_of.values()]


def _substitute(model: nn.Module, plan: Plan) -> nn.Module:
    for path, (weight, bias) in plan.hosts.items():
        layer = model.get_submodule(path)
        if isinstance(layer, FBNConv2d | FBNLinear):
            model = replace_module(model, path, _plain_layer(layer, weight, bias))
        else:
            old = layer._parameters["weight"]
            assert old is not None
            layer.register_parameter("weight", _like(old, weight))
            layer.register_parameter("bias", _like(old, bias))
    for path, rest in plan.rest.items():
        model = replace_module(model, path, rest.eval())
    return model


def _plain_layer(layer: FBNConv2d | FBNLinear, weight: Tensor, bias: Tensor) -> nn.Module:
    """The ordinary layer that an FBN layer has become: same path, same geometry, one dense weight."""
    with torch.device("meta"):  # no initialization, no random numbers drawn
        if isinstance(layer, FBNLinear):
            plain: nn.Module = nn.Linear(layer.in_features, layer.out_features)
        else:
            conv = layer.conv
            plain = nn.Conv2d(
                layer.in_channels,
                layer.out_channels,
                conv.kernel_size,  # type: ignore[arg-type]
                conv.stride,  # type: ignore[arg-type]
                conv.padding,  # type: ignore[arg-type]
                conv.dilation,  # type: ignore[arg-type]
                padding_mode=conv.padding_mode,
            )
    old = (layer if isinstance(layer, FBNLinear) else layer.conv)._parameters["weight"]
    assert old is not None
    for name, value in (("weight", weight), ("bias", bias)):
        plain.register_parameter(name, _like(old, value))
    return plain.eval()


def _like(old: nn.Parameter, value: Tensor) -> nn.Parameter:
    """`value` as a parameter with the dtype, device, memory format and requires_grad of `old`."""
    if value.shape == old.shape:
        data = torch.empty_like(old, requires_grad=False).copy_(value)
    else:
        data = value.to(device=old.device, dtype=old.dtype)
    return nn.Parameter(data, requires_grad=old.requires_grad)


def _report(
    model: nn.Module, graphs: list[CallGraph], plan: Plan, merged: Entries, rewritten: tuple[Folded, ...]
) -> FuseReport:
    kept = [*merged[1], *plan.kept.values()]
    for path, module in model.named_modules():
        if is_input_norm(module):
            reason = "its statistics come from the input: there is nothing to fold"
            kept.append(Kept(path=path, kind=type(module).__name__, reason=reason))
    for graph in graphs:
        for node in graph.graph.nodes:
            if _is_functional_norm(graph, node):
                where = max(graph.containers(node), key=len)
                reason = "called as a function, not as a module: nothing says whose statistics it uses"
                kept.append(Kept(path=where, kind="batch_norm", reason=reason))
    return FuseReport(
        folded=(*merged[0], *plan.folded.values()),
        kept=tuple(kept),
        left=len(count_normalization(model)),
        rewritten=rewritten,
    )


def _is_functional_norm(graph: CallGraph, node: fx.Node) -> bool:
    if node in graph.path_of or node.op != "call_function":
        return False
    return "batch_norm" in operation(node)
