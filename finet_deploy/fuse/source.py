"""Does a network's source only ever call a sub-module, or does it reach inside it?

Needed when the whole network cannot be traced but a part can: inside the part the folds are proven by its own call
graph, provided that nothing outside reads or calls the part's insides. Anything that is not plainly a call counts as
reaching inside.
"""

from __future__ import annotations

import ast
import functools
import inspect
import textwrap

from torch import nn

__all__ = ["reaches_inside"]

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_BY_NAME = {
    *("getattr", "get_submodule", "_modules", "children", "modules", "named_children", "named_modules"),
    *("parameters", "named_parameters", "state_dict"),
}


def reaches_inside(model: nn.Module, path: str) -> str | None:
    """The class whose source does something else with the sub-module at `path` than call it; None when none does."""
    parts = path.split(".")
    for depth in range(len(parts)):
        owner = model.get_submodule(".".join(parts[:depth]))
        if type(owner) in _CONTAINERS:
            continue  # calls its children, or is iterated by an owner further up, which is looked at by its own name
        is_part = depth == len(parts) - 1
        if any(_misuses(cls, parts[depth], is_part) for cls in type(owner).__mro__ if _is_own(cls)):
            return type(owner).__name__
    return None


@functools.lru_cache(maxsize=4096)
def _misuses(cls: type, name: str, is_part: bool) -> bool:
    """is_part: `name` is the part itself and may only be called; else a container, whose items may be called."""
    tree = _tree(cls)
    return tree is None or _tree_misuses(tree, name, is_part)


@functools.lru_cache(maxsize=512)
def _tree(cls: type) -> ast.AST | None:
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):
        return None  # no source to look at: nothing is known


def _is_own(cls: type) -> bool:
    return issubclass(cls, nn.Module) and cls is not nn.Module and cls not in _CONTAINERS


def _tree_misuses(tree: ast.AST, name: str, is_part: bool) -> bool:
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef) and function.name != "__init__":
            parents = {
                child: parent for parent in ast.walk(function) for child in ast.iter_child_nodes(parent)
            }
            if any(_is_misuse(node, name, is_part, parents) for node in ast.walk(function)):
                return True
    return False


def _is_misuse(node: ast.AST, name: str, is_part: bool, parents: dict[ast.AST, ast.AST]) -> bool:
    if isinstance(node, ast.Name | ast.Attribute):
        word = node.id if isinstance(node, ast.Name) else node.attr
        if word in _BY_NAME:
            return True
    if not isinstance(node, ast.Attribute) or node.attr != name:
        return False
    outer: ast.AST = node
    parent = parents.get(outer)
    if not is_part and isinstance(parent, ast.Subscript) and parent.value is outer:  # self.blocks[i](x)
        outer, parent = parent, parents.get(parent)
    if isinstance(parent, ast.Call) and parent.func is outer:
        return False
    if (
        not is_part
        and isinstance(parent, ast.For)
        and parent.iter is outer
        and isinstance(parent.target, ast.Name)
    ):
        return _loop_misuses(parent, parent.target.id, parents)
    return True


def _loop_misuses(loop: ast.For, variable: str, parents: dict[ast.AST, ast.AST]) -> bool:
    """`for block in self.blocks: x = block(x)`: the variable may only be called."""
    for node in ast.walk(loop):
        if isinstance(node, ast.Name) and node.id == variable and node is not loop.target:
            parent = parents.get(node)
            if not (isinstance(parent, ast.Call) and parent.func is node):
                return True
    return False
