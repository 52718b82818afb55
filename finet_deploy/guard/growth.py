"""What a change costs: bytes and emulated ARM instructions of a bundle's files, beside those of the base branch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.export.bundle import read_bundle
from finet_deploy.export.schema import ArtifactEntry

if TYPE_CHECKING:
    from finet_deploy.runner.cost import CostRow

__all__ = ["COUNTED", "Growth", "GrowthLimits", "file_growth", "instruction_growth"]

COUNTED = ("pte", "onnx")  # formats of which instructions can be counted
BASE_LABEL, NEW_LABEL = "base", "new"


class GrowthLimits(msgspec.Struct, frozen=True, kw_only=True):
    """By how many percent a file may grow over the base branch's.

    bytes: exporters of another version write other tables; 1 % leaves room for them. instructions: the count is
    exact for a file, and a real change of the network is larger than 1 %.
    """

    bytes_percent: float = 1.0
    instructions_percent: float = 1.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise UsageError(f"{name}={getattr(self, name)} is no limit", do="give percent, 0 or more")


class Growth(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of one file, here and on the base branch. base: None where the base branch has no such file.

    measure: `bytes` or `instructions` (one inference, emulated). limit: percent.
    """

    bundle: str
    file: str
    measure: str
    core: str | None
    base: int | None
    new: int
    limit: float

    @property
    def percent(self) -> float | None:
        """Growth over the base branch; None for a new file."""
        return None if not self.base else 100.0 * (self.new - self.base) / self.base

    @property
    def within(self) -> bool:
        """Not above the limit. What is new has nothing to be held against."""
        return self.percent is None or self.percent <= self.limit


def file_growth(name: str, new: Path, base: Path | None, limits: GrowthLimits) -> list[Growth]:
    """Bytes of every file of the bundle `new`, beside the same format's in `base`. Raises as `read_bundle`."""
    old = {} if base is None else read_bundle(base).manifest.artifacts
    return [
        Growth(
            bundle=name,
            file=entry.file,
            measure="bytes",
            core=None,
            base=old[fmt].bytes if fmt in old else None,
            new=entry.bytes,
            limit=limits.bytes_percent,
        )
        for fmt, entry in read_bundle(new).manifest.artifacts.items()
    ]


def instruction_growth(
    name: str,
    new: Path,
    base: Path | None,
    limits: GrowthLimits,
    cores: Sequence[str],
    progress: Callable[[str], None] = lambda step: None,
) -> list[Growth]:
    """Instructions of one inference of every file that can be counted, emulated. Raises as `measure_cost`.

    A file that is the base branch's, bit for bit, is counted once: the same file gives the same count.
    """
    from finet_deploy.runner.cost import measure_cost

    artifacts = read_bundle(new).manifest.artifacts
    if not any(fmt in artifacts for fmt in COUNTED):
        return []
    old = {} if base is None else read_bundle(base).manifest.artifacts
    table = measure_cost([(new, NEW_LABEL)], cores=cores, progress=progress)
    counts = {(row.runtime, row.core): row.instructions for row in table.rows}
    before = _counts_before(artifacts, old, base, cores, counts, progress)
    return [
        _instructions(name, row, artifacts, before.get((row.runtime, row.core)), limits) for row in table.rows
    ]


Counts = dict[tuple[str, str], int]  # (runtime, core) -> instructions


def _counts_before(
    artifacts: dict[str, ArtifactEntry],
    old: dict[str, ArtifactEntry],
    base: Path | None,
    cores: Sequence[str],
    counts: Counts,
    progress: Callable[[str], None],
) -> Counts:
    from finet_deploy.runner.cost import measure_cost

    both = [fmt for fmt in COUNTED if fmt in old and fmt in artifacts]
    same = {artifacts[fmt].runtime for fmt in both if old[fmt].sha256 == artifacts[fmt].sha256}
    before = {key: value for key, value in counts.items() if key[0] in same}
    changed = [artifacts[fmt].runtime for fmt in both if artifacts[fmt].runtime not in same]
    if base is not None and changed:
        table = measure_cost([(base, BASE_LABEL)], cores=cores, runtimes=changed, progress=progress)
        before |= {(row.runtime, row.core): row.instructions for row in table.rows}
    return before


def _instructions(
    name: str, row: CostRow, artifacts: dict[str, ArtifactEntry], before: int | None, limits: GrowthLimits
) -> Growth:
    file = next((entry.file for entry in artifacts.values() if entry.sha256 == row.artifact_sha256), None)
    if file is None:
        raise FinetDeployError("a file changed while it was counted", where=name, do="try again")
    return Growth(
        bundle=name,
        file=file,
        measure="instructions",
        core=row.core,
        base=before,
        new=row.instructions,
        limit=limits.instructions_percent,
    )
