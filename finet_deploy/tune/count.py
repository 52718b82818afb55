"""The search on an emulated core: instructions are counted once, since a count is the same each time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.export import Bundle
from finet_deploy.files import atomic_write_bytes, resolve_inside
from finet_deploy.json_files import read_json
from finet_deploy.runner.cost import CostRow, measure_cost
from finet_deploy.tune.budget import Budget, format_seconds
from finet_deploy.tune.model import Candidate, LeftOut

__all__ = ["Counted", "count_all"]

COUNT = "count"
MAX_BYTES = 1 << 20


@dataclass
class Counted:
    """Instructions of one inference by candidate, and who was not counted."""

    instructions: dict[str, int] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)


def count_all(
    candidates: Sequence[Candidate],
    bundles: Mapping[str, Bundle],
    *,
    core: str,
    folder: Path,
    budget: Budget,
    step: Callable[[str], None],
) -> Counted:
    """Count the candidates in their order, the default first, until all are or the budget ends.

    A count is kept as a file in `folder`, and taken from there when it is of the same artifact. Raises FinetDeployError
    when the default cannot be counted; another candidate that cannot is left out with the reason.
    """
    counted = Counted()
    for candidate in candidates:
        path = resolve_inside(folder, f"{candidate.id}.json")
        row = _stored(path, candidate, core)
        expected = budget.longest(COUNT, 0.0)
        if row is None and counted.instructions and not budget.fits(expected):
            reason = f"no time to count it: it takes some {format_seconds(expected)}"
            counted.left_out.append(LeftOut(what=candidate.label, reason=reason))
            continue
        try:
            row = row or _count(candidate, bundles[candidate.bundle], core, path, budget)
        except UsageError:
            raise
        except FinetDeployError as error:
            if not counted.instructions:
                raise
            counted.left_out.append(LeftOut(what=candidate.label, reason=str(error)))
            continue
        counted.instructions[candidate.id] = row.instructions
        step(candidate.label)
    return counted


def _count(candidate: Candidate, bundle: Bundle, core: str, path: Path, budget: Budget) -> CostRow:
    done = budget.timed(COUNT)
    table = measure_cost([(bundle.path, candidate.label)], cores=[core], runtimes=[candidate.runtime])
    (row,) = table.rows
    atomic_write_bytes(path, msgspec.json.encode(row))
    done()
    return row


def _stored(path: Path, candidate: Candidate, core: str) -> CostRow | None:
    """What an earlier process counted. FinetDeployError when the file is not what it wrote."""
    if not path.exists():
        return None
    row = read_json(path, CostRow, max_bytes=MAX_BYTES, what="not a count", do="remove it")
    return row if (row.artifact_sha256, row.core) == (candidate.sha256, core) else None
