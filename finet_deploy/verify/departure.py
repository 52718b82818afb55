"""Where two forms of a network part: the first module, as executed, whose output departs."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor, nn

from finet_deploy.verify.compare import compare
from finet_deploy.verify.forward import watch

__all__ = ["Departure", "first_departure"]


class Departure(NamedTuple):
    """`module`, a dotted path, is the first to depart, by norm-relative `error`."""

    module: str
    error: float


def first_departure(reference: nn.Module, candidate: nn.Module, x: Tensor, limit: float) -> Departure | None:
    """The first module whose output is further than `limit` from the unfused net's, both in float64.

    Modules are matched by path. A layer into which a later batch norm was folded (by the candidate's
    `fuse_report`) gives what the batch norm gave, so it is held against that. None: no module that both have
    departs; the fault lies between them.
    """
    outputs: dict[str, list[Tensor]] = {}  # by path, one a call; cloned, because ReLU may work in place
    watch(reference, x, lambda path, y: outputs.setdefault(path, []).append(y.clone()))
    sources = _sources(candidate, list(outputs))
    found: list[Departure] = []
    calls: dict[str, int] = {}

    def judge(path: str, y: Tensor) -> None:
        call = calls[path] = calls.get(path, -1) + 1
        source = sources.get(path, path)
        expected = outputs.get(source, []) if source is not None else []
        # After the first departure all depart; a call that the unfused net does not make has no match.
        if not found and call < len(expected):
            error = compare({path: expected[call]}, {path: y}).max_error
            if not error <= limit:
                found.append(Departure(path, error))

    watch(candidate, x, judge)
    return found[0] if found else None


def _sources(candidate: nn.Module, order: list[str]) -> dict[str, str | None]:
    """Module of the candidate -> module of the unfused net whose output it gives; None where nothing does.

    Without an entry a module gives what its namesake gives. For a layer it is the last batch norm folded into
    it; one that ran before the layer was folded into its input side and leaves the layer's output as it was.
    """
    report = getattr(candidate, "fuse_report", None)
    modules = dict(candidate.named_modules())
    rank = {path: position for position, path in enumerate(order)}
    sources: dict[str, str | None] = {}
    for fold in report.folded if report is not None else ():
        if fold.path == fold.into:
            continue
        if (
            fold.between
        ):  # folded through an activation or a pool: neither it nor the layer gives what it gave
            sources[fold.into] = None
            sources.update(dict.fromkeys(fold.between))
            continue
        last = sources.get(fold.into, fold.into)
        if last is not None and rank.get(fold.path, -1) > rank.get(last, -1):
            # A batch norm with an activation in it leaves the activation behind: the layer's own output then
            # has no match, and what stands in the batch norm's place has.
            rest = modules.get(fold.path)
            keeps_rest = rest is not None and not isinstance(rest, nn.Identity)
            sources[fold.into] = None if keeps_rest else fold.path
            if keeps_rest:
                continue
        sources.setdefault(fold.path, None)
    return sources
