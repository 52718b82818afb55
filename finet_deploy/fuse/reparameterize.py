"""Blocks that merge their own branches (RepVGG, MobileOne, FastViT, RepViT, GhostNetV3, ...), by their own methods.

The method is third-party code with known faults: new layers in fp32 on the CPU whatever the block's dtype and device,
leftover `id_tensor` attributes, train mode accepted. So it runs on a copy, on the CPU, in fp64, with the default dtype
set to match; leftovers are removed; and the result counts only if it computes what the block did, on random input.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from finet_deploy.errors import FinetDeployError
from finet_deploy.fuse.barriers import barriers
from finet_deploy.fuse.graph import join
from finet_deploy.fuse.kinds import count_normalization, has_hooks
from finet_deploy.fuse.report import Folded, Kept
from finet_deploy.fuse.trace import independent_copy, structural_copy

__all__ = ["merge_branches", "merge_by_fuse", "replace_module"]

# Norm-relative, in fp64: exact algebra gives about 1e-15.
_LIMIT = 1e-10
_METHODS = ("reparameterize", "switch_to_deploy")
# Sides of the random input for a block whose input is not known: odd, and larger for blocks that pool.
_SIDES = (7, 16, 32)

Entries = tuple[list[Folded], list[Kept]]
Shapes = dict[str, tuple[tuple[int, ...], ...]]


def replace_module(model: nn.Module, path: str, module: nn.Module) -> nn.Module:
    """Put `module` at `path` of `model`, in place; returns the model, which is `module` itself for an empty path."""
    if not path:
        return module
    parent, _, name = path.rpartition(".")
    setattr(model.get_submodule(parent), name, module)
    return model


def merge_branches(model: nn.Module, inputs: tuple[Tensor, ...] | None) -> tuple[nn.Module, Entries]:
    """Call `reparameterize()` or `switch_to_deploy()` of every block of `model` that has one, the root included.

    A block comes before the blocks inside it: it may merge those itself (FastViT's RepMixer).
    """
    return _Merger(model, _METHODS, inputs).run([""], descend=True)


def merge_by_fuse(
    model: nn.Module, kept: list[str], inputs: tuple[Tensor, ...] | None
) -> tuple[nn.Module, list[Folded]]:
    """For normalizations that no graph fold removes (after a sum of branches): the nearest block's `fuse()`, if any."""
    blocks: dict[str, None] = {}
    for path in kept:
        ancestors = [path.rsplit(".", level)[0] for level in range(1, path.count(".") + 1)]
        near = next((a for a in ancestors if _method(model.get_submodule(a), ("fuse",)) is not None), None)
        if near is not None:
            blocks[near] = None
    model, (folded, _) = _Merger(model, ("fuse",), inputs).run(list(blocks), descend=False)
    return model, folded  # where it failed, the plan's own reasons stand


class _Merger:
    def __init__(self, model: nn.Module, methods: tuple[str, ...], inputs: tuple[Tensor, ...] | None) -> None:
        self.model, self.methods, self.inputs = model, methods, inputs
        self.folded: list[Folded] = []
        self.kept: list[Kept] = []

    def run(self, paths: list[str], *, descend: bool) -> tuple[nn.Module, Entries]:
        candidates = [path for path, m in self.model.named_modules() if _method(m, self.methods) is not None]
        if candidates:
            self.blocked = barriers(self.model)
            self.shapes = {} if self.inputs is None else _input_shapes(self.model, candidates, self.inputs)
            for path in paths:
                self._visit(path, descend)
        return self.model, (self.folded, self.kept)

    def _visit(self, path: str, descend: bool) -> None:
        block = self.model.get_submodule(path)
        method = _method(block, self.methods)
        if method is not None:
            try:
                _refuse_barriers(path, block, self.blocked)
                merged = _checked(block, method, self.shapes.get(path))
            except FinetDeployError as error:
                if count_normalization(
                    block
                ):  # else nothing is lost: some methods fail when there is no more to merge
                    self.kept.append(Kept(path=path, kind=type(block).__name__, reason=str(error)))
            else:
                if merged is not None:
                    self.model = replace_module(self.model, path, merged)
                    self.folded.append(Folded(path=path, kind="reparameterized", into=path))
        if descend:
            for name, _ in list(self.model.get_submodule(path).named_children()):
                self._visit(join(path, name), descend)


def _lies_in(path: str, other: str) -> bool:
    return other == "" or path.startswith(other + ".")


def _method(module: nn.Module, names: tuple[str, ...]) -> str | None:
    """The name of the block's own merge method: it takes no arguments (a VAE's `reparameterize(mu, var)` does)."""
    if type(module).__module__.startswith("torch."):
        return None
    for name in names:
        method = getattr(type(module), name, None)
        if callable(method):
            needed = [
                parameter
                for parameter in list(inspect.signature(method).parameters.values())[1:]
                if parameter.default is parameter.empty and parameter.kind not in (2, 4)
            ]
            if not needed:
                return name
    return None


def _refuse_barriers(path: str, block: nn.Module, blocked: dict[str, str]) -> None:
    inside = next((reason for other, reason in blocked.items() if _lies_in(other, path)), None)
    if inside is not None:
        raise FinetDeployError(f"not re-parameterized: {inside}")
    if any(has_hooks(module) for module in block.modules()):
        raise FinetDeployError("not re-parameterized: a module inside it has hooks")


def _input_shapes(model: nn.Module, paths: list[str], inputs: tuple[Tensor, ...]) -> Shapes:
    """Shapes of the tensors that each block is called with, seen while the model runs on the example inputs."""
    copied = structural_copy(model)
    shapes: Shapes = {}
    for path in paths:

        def note(_module: nn.Module, args: tuple[object, ...], *, path: str = path) -> None:
            shapes[path] = tuple(tuple(arg.shape) for arg in args if isinstance(arg, Tensor))

        copied.get_submodule(path).register_forward_pre_hook(note)
    try:
        with torch.no_grad():
            copied(*(value.clone() for value in inputs))
    except Exception:  # noqa: BLE001 - the network's own code; the blocks are then checked on shapes of our own
        return {}
    return shapes


def _checked(block: nn.Module, method: str, shapes: tuple[tuple[int, ...], ...] | None) -> nn.Module | None:
    """The merged block, rounded to the block's dtype; None when the method had nothing to merge.

    Raises FinetDeployError, for the report, when the method fails or its result is not the same function.
    """
    tensors = [tensor for tensor in (*block.parameters(), *block.buffers()) if tensor.is_floating_point()]
    dtypes = {tensor.dtype for tensor in tensors}
    devices = {tensor.device for tensor in tensors}
    if len(dtypes) != 1 or len(devices) != 1:
        raise FinetDeployError("not re-parameterized: its tensors differ in dtype or device")
    trainable = any(parameter.requires_grad for parameter in block.parameters())
    before, work = (independent_copy(block).to("cpu", torch.float64) for _ in range(2))
    try:
        with torch.no_grad(), _fp64_defaults():
            merged = getattr(work, method)()
    except Exception as error:  # third-party code: whatever it raises, the block stays
        raise FinetDeployError(f"not re-parameterized: {method}() fails: {error}") from error
    merged = merged if isinstance(merged, nn.Module) else work
    _remove_leftovers(block, merged)
    if type(merged) is type(block) and merged.state_dict().keys() == block.state_dict().keys():
        return None
    _compare(before, merged, shapes)
    for parameter in merged.parameters():
        parameter.requires_grad_(trainable)
    return merged.to(devices.pop(), dtypes.pop()).eval()


@contextmanager
def _fp64_defaults() -> Iterator[None]:
    """New layers are made in fp64; the random numbers that initialize them are not taken from the user."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.random.fork_rng([]), torch.device("cpu"):
            yield
    finally:
        torch.set_default_dtype(before)


def _remove_leftovers(block: nn.Module, merged: nn.Module) -> None:
    """Delete plain tensor attributes that the block did not have (`id_tensor`): they are saved with the model."""
    known = {
        name
        for module in block.modules()
        for name, value in vars(module).items()
        if isinstance(value, Tensor)
    }
    for module in merged.modules():
        for name in [n for n, v in vars(module).items() if isinstance(v, Tensor) and n not in known]:
            delattr(module, name)


def _compare(before: nn.Module, merged: nn.Module, shapes: tuple[tuple[int, ...], ...] | None) -> None:
    """Raise FinetDeployError unless both blocks agree on random input, of the seen shapes or of likely ones."""
    candidates = [shapes] if shapes else _likely_shapes(before)
    generator = torch.Generator().manual_seed(0)
    for candidate in candidates:
        arguments = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in candidate]
        expected = _run(before, arguments)
        if expected is None:
            continue
        found = _run(merged.eval(), arguments)
        error = float("inf") if found is None else _error(expected, found)
        if not error <= _LIMIT:
            raise FinetDeployError(
                f"not re-parameterized: the result differs by {error:.1e} from the block's own"
            )
        return
    raise FinetDeployError("not re-parameterized: the block could not be run alone; give example_inputs")


def _likely_shapes(block: nn.Module) -> list[tuple[tuple[int, ...], ...]]:
    """Image-like inputs with the channels that one of the block's convolutions takes; a wrong guess does not run."""
    channels = dict.fromkeys(
        module.in_channels for module in block.modules() if isinstance(module, nn.Conv2d)
    )
    return [((1, count, side, side),) for side in _SIDES for count in channels]


def _run(module: Callable[..., object], arguments: list[Tensor]) -> list[Tensor] | None:
    try:
        with torch.no_grad():
            result = module(*(argument.clone() for argument in arguments))
    except Exception:  # noqa: BLE001 - a shape that the block does not take
        return None
    return [leaf for leaf in pytree.tree_leaves(result) if isinstance(leaf, Tensor)]


def _error(expected: list[Tensor], found: list[Tensor]) -> float:
    if [tensor.shape for tensor in expected] != [tensor.shape for tensor in found]:
        return float("inf")
    worst = 0.0
    for truth, value in zip(expected, found):
        difference, scale = float((value - truth).norm()), float(truth.norm())
        worst = max(worst, difference / scale if scale else (0.0 if difference == 0 else float("inf")))
    return worst
