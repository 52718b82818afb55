"""Is a bundle made of the checkpoint that it names? Here the golden outputs themselves are doubted.

A script that changes statistics before it fuses writes a bundle that agrees with itself: golden outputs, certificate
and files all come from the changed network. Only the checkpoint tells.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finet_deploy.errors import FinetDeployError
from finet_deploy.files import sha256_file
from finet_deploy.guard.bundles import GuardedBundle
from finet_deploy.verify import Check
from finet_deploy.verify.certificate import check_outputs
from finet_deploy.verify.compare import compare, relative_error

if TYPE_CHECKING:
    from torch import nn

__all__ = ["check_golden", "check_weights", "first_wrong_module"]

# The same float64 sums on another machine: 1e-14 and less on ordinary inputs. The smallest wrong fold is 5e-6 off.
GOLDEN_LIMIT = 1e-9
# Weights of a right file are the fold rounded to fp32; the deploy passes' own roundings are of that size too.
WEIGHT_LIMIT = 1e-5
RAW_STD = 1 / 255


def check_weights(guarded: GuardedBundle) -> Check:
    """Does the bundle come from one of the checkpoints, and are its weights those in it?"""
    name, source = "source/weights", guarded.manifest.source
    path = _checkpoint(guarded)
    if path is None:
        whose = f"{source.path or source.kind} ({(source.sha256 or 'no SHA-256')[:12]})"
        given = ", ".join(item.name for item in guarded.policy.checkpoints)
        return _failed(name, f"made of {whose}, which is none of the checkpoints given: {given}")
    from finet_deploy.export.writer import weights_sha256

    if weights_sha256(_network(path)) != guarded.manifest.weights_sha256:
        return _failed(name, f"weights or statistics were changed after {path.name} was loaded")
    return Check(name=name, stage="source", passed=True, message=f"the weights are those of {path.name}")


def check_golden(guarded: GuardedBundle) -> Check:
    """Are the golden outputs those of the checkpoint's network, run again in float64?"""
    path = _checkpoint(guarded)
    if path is None:
        reason = "none of the checkpoints given is the one that the bundle names"
        return Check(name="source/golden", stage="source", passed=None, message="not run", reason=reason)
    import torch

    from finet_deploy.verify.forward import as_dtype, run

    golden = guarded.golden
    inputs = {key: torch.from_numpy(x.copy()) for key, x in golden.inputs.items()}
    truth = run(as_dtype(_as_exported(guarded, _network(path)), torch.float64), inputs, torch.float64)
    return check_outputs("source/golden", compare(truth, golden.outputs), limit=GOLDEN_LIMIT)


def _failed(name: str, message: str) -> Check:
    return Check(name=name, stage="source", passed=False, message=message)


def _checkpoint(guarded: GuardedBundle) -> Path | None:
    wanted = guarded.manifest.source.sha256
    return next((path for path in guarded.policy.checkpoints if sha256_file(path) == wanted), None)


@functools.lru_cache(maxsize=2)
def _network(path: Path) -> nn.Module:
    from finet_deploy.checkpoint import load_checkpoint

    return load_checkpoint(path)


def _raw(guarded: GuardedBundle) -> bool:
    preprocessing = guarded.manifest.preprocessing
    return preprocessing is not None and abs(preprocessing.std[0] - RAW_STD) < 1e-9


def _as_exported(guarded: GuardedBundle, network: nn.Module) -> nn.Module:
    """The network that takes the bundle's inputs: pixels from 0 to 255 where it was exported so."""
    if not _raw(guarded):
        return network
    from finet_deploy.images import Preprocessing, preprocessing_for
    from finet_deploy.passes.standardize import RawPixels

    known = network.weights_origin.get("preprocessing")  # type: ignore[union-attr, operator]
    config: Any = network.model_config
    own = Preprocessing.from_json_object(known) if known else preprocessing_for(config, network)
    return RawPixels(network, own.mean, own.std)


def first_wrong_module(guarded: GuardedBundle, fmt: str) -> str | None:
    """Where a file's weights part from those of the checkpoint, as a phrase; None when that cannot be told.

    Only `.onnx` files in fp32 show their weights by name; the others say nothing of their modules.
    """
    path = _checkpoint(guarded)
    manifest = guarded.manifest
    if fmt != "onnx" or path is None or not manifest.fused or _raw(guarded):
        return None
    if manifest.artifacts[fmt].dtype != "float32":
        return None
    try:
        return _first_wrong(guarded, path)
    except (FinetDeployError, ValueError, TypeError, KeyError, ImportError):
        return None  # the file's tensors, or what leads to its modules, are damaged: other checks say so


def _first_wrong(guarded: GuardedBundle, checkpoint: Path) -> str:
    import torch

    from finet_deploy.fuse import fuse
    from finet_deploy.verify.forward import as_dtype, execution_order

    x = torch.from_numpy(next(iter(guarded.golden.inputs.values())).copy())
    reference = fuse(_network(checkpoint), example_inputs=(x,))
    found = _weights_by_module(guarded)
    wanted = reference.state_dict()
    for module in execution_order(as_dtype(reference, torch.float64), x):
        for kind in ("weight", "bias"):
            ours, theirs = wanted.get(f"{module}.{kind}"), found.get((module, kind))
            if ours is None or theirs is None:
                continue
            a, b = _unpadded(theirs, ours.double().numpy())
            if a.shape != b.shape:
                return f"first departing module: {module}, whose {kind} has shape {theirs.shape}"
            error, _ = relative_error(a, b)
            if not error <= WEIGHT_LIMIT:
                return f"first departing module: {module}, whose {kind} is {error:.2g} off the checkpoint's"
    return "all weights found by name are the checkpoint's: the fault lies between the modules"


def _weights_by_module(guarded: GuardedBundle) -> dict[tuple[str, str], Any]:
    """(module, weight or bias) -> values in the file, by what is known of its nodes."""
    import numpy as np
    from onnx import numpy_helper

    from finet_deploy.guard.graphs import load_onnx

    graph = load_onnx(guarded.artifact("onnx")).graph
    tensors = {item.name: item for item in graph.initializer}
    operators = guarded.operators
    listed = {} if operators is None or operators.onnx is None else operators.onnx.nodes
    found = {}
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm"):
            continue
        entry = listed.get(node.name)
        for kind, name in zip(("weight", "bias"), node.input[1:]):
            module = entry.module if entry is not None else name.removesuffix(f".{kind}")
            if name in tensors and (module, kind) not in found:
                found[module, kind] = numpy_helper.to_array(tensors[name]).astype(np.float64)
    return found


def _unpadded(theirs: Any, ours: Any) -> tuple[Any, Any]:
    """Without the zero channels that a deploy pass put after the network's own; shapes as they are otherwise."""
    if theirs.ndim == ours.ndim and all(a >= b for a, b in zip(theirs.shape, ours.shape)):
        kept = theirs[tuple(slice(size) for size in ours.shape)]
        if abs(theirs).sum() == abs(kept).sum():
            return kept, ours
    return theirs, ours
