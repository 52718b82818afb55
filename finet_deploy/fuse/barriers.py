"""Reasons to leave a module alone that lie in the module tree: it is shared, tied, hooked, parametrized."""

from __future__ import annotations

from collections import defaultdict

from torch import nn
from torch.utils import _pytree as pytree

from finet_deploy.fuse.kinds import TREE, has_hooks, is_batch_norm, is_fbn, is_foldable, is_host, unfit

__all__ = ["barriers", "hooked_between"]


def barriers(model: nn.Module) -> dict[str, str]:
    """Dotted path -> reason, for every normalization, scalar, convolution and linear layer that must not be changed."""
    places = _places(model)
    tied = _tied(model)
    reasons: dict[str, str] = {}
    for path, module in model.named_modules():
        if not (is_fbn(module) or is_foldable(module) or is_host(module)):
            continue
        parts = list(module.modules()) if is_fbn(module) else [module]
        shared = [names for names in (places[id(part)] for part in parts) if len(names) > 1]
        reason = next((found for found in map(unfit, parts) if found), None)
        if shared:
            reason = f"the {type(module).__name__} is shared: {' and '.join(map(repr, shared[0]))}"
        elif reason is None and not is_batch_norm(module) and any(id(part) in tied for part in parts):
            other = next(tied[id(part)] for part in parts if id(part) in tied)
            reason = f"the {type(module).__name__} shares its parameters with '{other}'"
        if reason is not None:
            reasons[path] = reason
    return reasons


def _places(model: nn.Module) -> dict[int, list[str]]:
    """id(module) -> every name under which the model holds it, plain lists and dictionaries included."""
    places: dict[int, list[str]] = defaultdict(list)
    for path, module in model.named_modules(remove_duplicate=False):
        places[id(module)].append(path)
    for path, module in model.named_modules():
        stored = {key: value for key, value in vars(module).items() if key not in TREE}
        for keys, leaf in pytree.tree_flatten_with_path(stored)[0]:
            if isinstance(leaf, nn.Module):
                for inner_path, inner in leaf.named_modules():
                    name = ".".join(part for part in (path + pytree.keystr(keys), inner_path) if part)
                    places[id(inner)].append(name)
    return places


def _tied(model: nn.Module) -> dict[int, str]:
    """id(module) -> name of another module that holds one of the module's own parameters.

    By identity: that is what a deep copy keeps, and what fuse works on is a deep copy.
    """
    owners: dict[int, list[tuple[str, nn.Module]]] = defaultdict(list)
    for path, module in model.named_modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners[id(parameter)].append((path, module))
    tied: dict[int, str] = {}
    for (first, one), (second, other) in (held[:2] for held in owners.values() if len(held) > 1):
        tied[id(one)], tied[id(other)] = second, first
    return tied


def hooked_between(modules: dict[str, nn.Module], inside: list[set[str]]) -> str | None:
    """Path of a hooked module that one of the calls lies in and another does not: its hook sees the value between."""
    crossed = set[str]().union(*inside) - inside[0].intersection(*inside[1:])
    return next((path for path in sorted(crossed) if path in modules and has_hooks(modules[path])), None)
