"""Running a network on named inputs, and the properties of those inputs that a certificate depends on.

Everything runs on the CPU: float64 is the truth there, and no accelerator rounds differently behind our back.
"""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.files import sha256_bytes
from finet_deploy.verify.certificate import InputSummary

__all__ = [
    "as_dtype",
    "check_inputs",
    "execution_order",
    "ordinary_inputs",
    "ordinary_names",
    "require_finite_truth",
    "run",
    "summarize",
    "watch",
]

MAX_ROWS = 4  # images of one forward: larger float64 batches are slower on two cores, and need more memory


def as_dtype(model: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy of `model` on the CPU in `dtype`; the original is untouched."""
    return copy.deepcopy(model).to(device="cpu", dtype=dtype)


def check_inputs(inputs: Mapping[str, Tensor]) -> None:
    """Raises UsageError for inputs on which nothing can be compared."""
    if not inputs:
        raise UsageError(
            "no inputs to compare on", do="give named tensors, such as evaluation_inputs(photos)"
        )
    for name, x in inputs.items():
        if not isinstance(x, Tensor) or x.ndim < 2 or x.numel() == 0:
            raise UsageError(f"input {name!r} is not a tensor with a batch dimension", do="give (N, C, H, W)")
        if not bool(torch.isfinite(x).all()):
            raise UsageError(f"input {name!r} has NaN or infinite values", do="leave it out")


def run(model: nn.Module, inputs: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Outputs by input name, in `dtype`. Inputs of one shape share a forward: eval mode keeps rows apart."""
    outputs: dict[str, Tensor] = {}
    with torch.inference_mode():
        for names in _chunks(inputs):
            rows = [len(inputs[name]) for name in names]
            # torch.cat copies, so that a network that works in place cannot change the caller's tensors.
            x = torch.cat([_cast(inputs[name], dtype) for name in names])
            y = _single_tensor(model, x)
            if y.shape[:1] != (sum(rows),):
                y = torch.stack([_single_tensor(model, _cast(inputs[name], dtype).clone()) for name in names])
                outputs.update(zip(names, y))
            else:
                outputs.update(zip(names, y.split(rows)))
    return {name: outputs[name] for name in inputs}


def _chunks(inputs: Mapping[str, Tensor]) -> Iterator[list[str]]:
    groups: dict[tuple[object, ...], list[str]] = {}
    for name, x in inputs.items():
        groups.setdefault((x.shape[1:], x.dtype), []).append(name)
    for names in groups.values():
        step = max(1, MAX_ROWS // max(len(inputs[name]) for name in names))
        yield from (names[start : start + step] for start in range(0, len(names), step))


def _cast(x: Tensor, dtype: torch.dtype) -> Tensor:
    x = x.detach().cpu()
    return x.to(dtype) if x.is_floating_point() else x


def _single_tensor(model: nn.Module, x: Tensor) -> Tensor:
    y = model(x)
    if not isinstance(y, Tensor):
        raise UsageError(
            f"the network returns {type(y).__name__}, not one tensor",
            where=type(model).__name__,
            do="wrap it in a module that returns the output to compare",
        )
    return y


def require_finite_truth(truth: Mapping[str, Tensor]) -> None:
    """Raises FinetDeployError when the unfused net's float64 output is not finite, or beyond fp32's range."""
    for name, y in truth.items():
        if not bool(torch.isfinite(y).all()):
            found = f"the unfused network's own float64 output is NaN or infinite on input {name!r}"
        elif float(y.abs().max()) > torch.finfo(torch.float32).max:
            found = f"the unfused network's output on input {name!r} is beyond the range of fp32"
        else:
            continue
        raise FinetDeployError(found, do="check the weights and running variances, or leave this input out")


def ordinary_names(inputs: Mapping[str, Tensor]) -> list[str]:
    """Names of the inputs that are neither constant nor extreme: their standard deviation is that of most others.

    Within a factor of 5 of the median, whatever the unit (standardized colours, or 0 to 255).
    """
    deviations = {name: float(x.double().std()) if x.numel() > 1 else 0.0 for name, x in inputs.items()}
    plausible = [deviation for deviation in deviations.values() if 1e-3 <= deviation <= 1e3]
    middle = statistics.median(plausible) if plausible else math.inf
    return [name for name, deviation in deviations.items() if middle / 5 <= deviation <= middle * 5]


def ordinary_inputs(inputs: Mapping[str, Tensor]) -> list[str]:
    """Names of the ordinary inputs, without those that are a copy of another."""
    names: list[str] = []
    for name in ordinary_names(inputs):
        if not any(torch.equal(inputs[name], inputs[other]) for other in names):
            names.append(name)
    return names


def summarize(inputs: Mapping[str, Tensor]) -> tuple[InputSummary, ...]:
    """What the certificate says about each input."""
    return tuple(
        InputSummary(
            name=name,
            shape=tuple(x.shape),
            dtype=str(x.dtype).removeprefix("torch."),
            sha256=sha256_bytes(x.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()),
            minimum=float(x.min()),
            maximum=float(x.max()),
        )
        for name, x in inputs.items()
    )


def watch(model: nn.Module, x: Tensor, note: Callable[[str, Tensor], None]) -> None:
    """Run `model` on `x` in float64; `note(dotted path, output)` is called as each module's forward ends."""

    def hook(path: str) -> Callable[[nn.Module, Any, Any], None]:
        def observe(_module: nn.Module, _args: Any, output: Any) -> None:
            if isinstance(output, Tensor):
                note(path, output)

        return observe

    handles = [module.register_forward_hook(hook(path)) for path, module in model.named_modules() if path]
    try:
        run(model, {"x": x}, torch.float64)
    finally:
        for handle in handles:
            handle.remove()


def execution_order(model: nn.Module, x: Tensor) -> list[str]:
    """Dotted paths of a float64 network's modules, in the order in which their forward first ends."""
    order: dict[str, None] = {}
    watch(model, x, lambda path, _output: order.setdefault(path))
    return list(order)
