"""What is in a file: its operators, read without running it, held against what the manifest says about it.

An unfused network computes the same as a fused one, so that no comparison of outputs tells them apart. Its graph does.
"""

from __future__ import annotations

import collections
import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finet_deploy.errors import FinetDeployError
from finet_deploy.export.operators import OnnxOperators, PteOperators, count_normalization_ops
from finet_deploy.files import read_bounded
from finet_deploy.guard.bundles import GuardedBundle
from finet_deploy.runtimes.needs import Needs, read_needs
from finet_deploy.verify import Check

__all__ = ["check_delegation", "check_form", "check_graph", "load_onnx"]

MAX_FILE_BYTES = 2 << 30
SHOWN = 3  # differences named in one message
XNNPACK = "XnnpackBackend"


def check_form(guarded: GuardedBundle) -> Check:
    """Is the network fused, as the manifest tells it?"""
    manifest, allowed = guarded.manifest, guarded.policy.allow_unfused
    left = manifest.fuse_report.get("left", 0)
    if manifest.fused:
        return _check("form/fused", True, "exported with normalization folded", {"left": left})
    message = "exported unfused"
    if not allowed:
        message += f": {manifest.program_normalization_ops} normalizations run at every inference; export with --fuse"
    return _check("form/fused", allowed, message, {"left": left})


def check_graph(guarded: GuardedBundle, fmt: str) -> Check:
    """Are the file's operators those that the manifest and `operators.json` list, and none of them normalizations?"""
    path = guarded.artifact(fmt)
    found, problems = {"onnx": _onnx, "pte": _pte, "ptl": _ptl}[fmt](guarded, path)
    left = count_normalization_ops(found)
    if left and guarded.manifest.fused and left > guarded.manifest.artifacts[fmt].normalization_ops:
        problems.insert(0, f"{left} normalizations in a file that the manifest calls fused")
    message = _listed(problems) if problems else "its operators are those that were exported"
    figures = {"normalizations": left, "problems": problems}
    return _check(f"graph/{fmt}", not problems, message, figures)


def check_delegation(guarded: GuardedBundle, fmt: str) -> Check:
    """Does XNNPACK get as much of the file as the manifest says, and as much as the repository demands?"""
    entry, least = guarded.manifest.artifacts[fmt], guarded.policy.min_delegated_share
    needs = read_needs(guarded.artifact(fmt), fmt)
    delegates, share = len(needs.delegate_nodes), entry.delegated_share or 0.0
    problems = []
    if delegates != entry.delegates:
        problems.append(f"{delegates} delegates in the file, {entry.delegates} in the manifest")
    problems += [f"a delegate of {name}" for name in needs.backends if name != XNNPACK]
    if share < least:
        outside = ", ".join(f"{name} x {count}" for name, count in entry.outside_ops.items())
        problems.append(f"{share:.0%} of the operators are delegated, needed {least:.0%}; outside: {outside}")
    plural = "" if delegates == 1 else "s"
    message = _listed(problems) or f"{delegates} delegate{plural} with {share:.0%} of the operators"
    figures = {"delegates": delegates, "delegated_share": share}
    return _check(f"delegation/{fmt}", not problems, message, figures, {"delegated_share": least})


def _check(
    name: str,
    passed: bool,
    message: str,
    figures: Mapping[str, Any],
    limits: Mapping[str, float] | None = None,
) -> Check:
    return Check(
        name=name,
        stage=name.partition("/")[0],
        passed=passed,
        message=message,
        figures=dict(figures),
        limits=dict(limits or {}),
    )


def _listed(problems: list[str]) -> str:
    more = f" (and {len(problems) - SHOWN} more)" if len(problems) > SHOWN else ""
    return "; ".join(problems[:SHOWN]) + more


def load_onnx(path: Path) -> Any:
    """The file's `ModelProto`. FinetDeployError when onnx is not installed, or it is no such file."""
    try:
        onnx = importlib.import_module("onnx")
        message = importlib.import_module("google.protobuf.message")
    except ImportError as error:
        raise FinetDeployError(
            f"onnx cannot be loaded: {error}", do="pip install 'finet-deploy[onnx]'"
        ) from error
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(read_bounded(path, MAX_FILE_BYTES))
    except (message.DecodeError, ValueError) as error:
        raise FinetDeployError(
            f"not an .onnx file: {error}", where=str(path), do="export it again"
        ) from error
    return proto


def _onnx(guarded: GuardedBundle, path: Path) -> tuple[dict[str, int], list[str]]:
    proto = load_onnx(path)
    nodes = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    found = dict(collections.Counter(node.op_type for node in nodes))
    problems = _onnx_contract(guarded, proto)
    operators = guarded.operators
    listed = None if operators is None else operators.onnx
    if listed is not None:
        problems += _other_nodes(listed, nodes)
    return found, problems + _other_counts(guarded.manifest.artifacts["onnx"].op_counts, found)


def _onnx_contract(guarded: GuardedBundle, proto: Any) -> list[str]:
    """Weights inside the file, and one input and output of the manifest's names and shapes."""
    problems = []
    outside = [item.name for item in proto.graph.initializer if item.data_location]
    if outside:
        problems.append(f"weights in another file: {outside[0]} (and {len(outside) - 1} more)")
    weights = {item.name for item in proto.graph.initializer}
    inputs = [item for item in proto.graph.input if item.name not in weights]
    for kind, items, entry in (
        ("input", inputs, guarded.manifest.input),
        ("output", list(proto.graph.output), guarded.manifest.output),
    ):
        shapes = [
            (item.name, tuple(dim.dim_value for dim in item.type.tensor_type.shape.dim)) for item in items
        ]
        if shapes != [(entry.name, entry.shape)]:
            problems.append(f"{kind} {shapes} where the manifest has {entry.name} {entry.shape}")
    return problems


def _other_nodes(listed: OnnxOperators, nodes: list[Any]) -> list[str]:
    """The first operator that is not the export's, by the module that it belongs to or follows."""
    module = ""
    for node in nodes:
        entry = listed.nodes.get(node.name)
        scope = _scope(node)
        if entry is not None and entry.op == node.op_type:
            module = entry.module or module
            continue
        place = f"in module {scope}" if scope else f"after module {module or '(the input)'}"
        return [f"operator {node.op_type} ({node.name}) {place} is not one that was exported"]
    gone = [name for name in listed.nodes if name not in {node.name for node in nodes}]
    return (
        [f"operator {listed.nodes[gone[0]].op} of module {listed.nodes[gone[0]].module} is gone"]
        if gone
        else []
    )


def _scope(node: Any) -> str:
    """The module that torch's exporter left in a node's metadata; empty where there are none."""
    for item in node.metadata_props:
        if item.key == "pkg.torch.onnx.name_scopes":
            names = [part.strip(" '\"") for part in item.value.strip("[]").split(",")]
            return next((name for name in reversed(names[:-1]) if name), "")
    return ""


def _other_counts(stated: Mapping[str, int], found: Mapping[str, int]) -> list[str]:
    return [
        f"{found.get(op, 0)} {op} in the file, {stated.get(op, 0)} in the manifest"
        for op in sorted({*stated, *found})
        if stated.get(op, 0) != found.get(op, 0)
    ]


def _pte(guarded: GuardedBundle, path: Path) -> tuple[dict[str, int], list[str]]:
    needs = read_needs(path, "pte")
    operators = guarded.operators
    listed = None if operators is None else operators.pte
    problems = [] if listed is None else _other_delegates(listed, needs)
    return dict.fromkeys(needs.operators, 1), problems


def _other_delegates(listed: PteOperators, needs: Needs) -> list[str]:
    if len(listed.delegates) != len(needs.delegate_nodes):
        return [f"{len(needs.delegate_nodes)} delegates in the file, {len(listed.delegates)} were exported"]
    return [
        f"delegate {place}: {found} nodes in the file, {len(nodes)} were exported"
        for place, (nodes, found) in enumerate(zip(listed.delegates, needs.delegate_nodes))
        if found is not None and found != len(nodes)
    ]


def _ptl(guarded: GuardedBundle, path: Path) -> tuple[dict[str, int], list[str]]:
    needs, stated = read_needs(path, "ptl"), set(guarded.manifest.artifacts["ptl"].operators)
    problems = [f"operator {name} was not exported" for name in sorted(set(needs.operators) - stated)]
    problems += [f"operator {name} is gone" for name in sorted(stated - set(needs.operators))]
    return dict.fromkeys(needs.operators, 1), problems
