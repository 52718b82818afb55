"""Measure what looks like a regression again: both bundles in one interleaved run, whose verdict replaces the first."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from finet_deploy.bench.plan import BenchRow
from finet_deploy.bench.protocol import Row
from finet_deploy.bench.records import Run
from finet_deploy.bench.run import Progress, run_bench
from finet_deploy.bench.summary import fusion_label
from finet_deploy.compare.changes import Changes, Options, RowChange
from finet_deploy.compare.comparison import compare_sides, failures_of
from finet_deploy.compare.matching import Match, match_rows
from finet_deploy.compare.sides import Measured, Side, same_device
from finet_deploy.devices.base import Device
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.files import folder_name

__all__ = ["LEAST_ROUNDS", "Confirmation", "confirm", "find_bundle"]

LEAST_ROUNDS = 10
MAX_BUNDLES = 1000

OpenDevice = Callable[[str, str | None], contextlib.AbstractContextManager[Device]]


@dataclass(frozen=True)
class Confirmation:
    """Where the bundles of both sides are (also: their parent folders), where the runs go, and how many rounds.

    Without folders the bundles are looked for where the runs had them. rounds: None for those of BASE's preset, but at
    least `LEAST_ROUNDS`. open_device: the device of a name, with the kind of runner that BASE was measured with.
    """

    out: Path
    open_device: OpenDevice
    base_bundles: tuple[Path, ...] = ()
    new_bundles: tuple[Path, ...] = ()
    rounds: int | None = None
    progress: Progress | None = None


@dataclass(frozen=True)
class _Planned:
    """One confirming run: a network on a device, in the runtimes in which it is suspected."""

    matches: tuple[Match, ...]
    rows: tuple[BenchRow, BenchRow]
    mixed_fusion: bool
    mixed_precision: bool


def confirm(
    changes: Changes,
    base: Side,
    new: Side | None,
    how: Confirmation,
    *,
    named: Sequence[tuple[str, str]] = (),
) -> Changes:
    """`changes` with the suspected rows measured again; as it is when nothing is suspected.

    All bundles are found before the first visit. FinetDeployError when one is not at hand, or is another one than was
    measured; UsageError when a device is another one.
    """
    suspects = {_key(row): row for row in changes.rows if row.suspect}
    if not suspects:
        return changes
    matches = [match for match in match_rows(base, new or base, named) if _key(match) in suspects]
    groups: dict[tuple[object, ...], list[Match]] = {}
    for match in matches:
        groups.setdefault((match.device, match.network, match.precision, match.threads), []).append(match)
    plans = [_plan(group, how) for group in groups.values()]
    runs: list[tuple[_Planned, Run]] = []
    for device in dict.fromkeys(plan.matches[0].device for plan in plans):
        mine = [plan for plan in plans if plan.matches[0].device == device]
        job = mine[0].matches[0].base[0].run.job
        with how.open_device(device, job.runner) as opened:
            if found := same_device(job.device, opened.info()):
                do = "confirm where it was measured"
                raise UsageError(f"not the device of BASE: {'; '.join(found)}", where=device, do=do)
            runs += [(plan, _measure(plan, opened, how, len(runs) + n)) for n, plan in enumerate(mine)]
    return _with(changes, suspects, runs)


def _key(row: RowChange | Match) -> tuple[str, str, str, str, int]:
    return row.device, row.network, row.runtime, row.precision, row.threads


def _plan(matches: Sequence[Match], how: Confirmation) -> _Planned:
    first = matches[0]
    sides = (first.base[0], how.base_bundles, "base"), (first.new[0], how.new_bundles, "new")
    found = [
        BenchRow(find_bundle(item, folders, side), f"{side}: {first.network} ({first.precision})")
        for item, folders, side in sides
    ]
    pairs = [(match.base[0].row, match.new[0].row) for match in matches]
    return _Planned(
        tuple(matches),
        (found[0], found[1]),
        mixed_fusion=any(fusion_label(old) != fusion_label(now) for old, now in pairs),
        mixed_precision=any(old.artifact.dtype != now.artifact.dtype for old, now in pairs),
    )


def _measure(plan: _Planned, device: Device, how: Confirmation, number: int) -> Run:
    match = plan.matches[0]
    settings = match.base[0].run.job.settings
    rounds = how.rounds or max(settings.rounds, LEAST_ROUNDS)
    name = folder_name(match.network, "network")
    return run_bench(
        plan.rows,
        device=device,
        out=how.out / f"{number:02d}-{name[:60]}",
        preset=msgspec.structs.replace(settings, rounds=rounds, aa_row=True),
        threads=match.threads,
        runtimes=[match.runtime for match in plan.matches],
        mixed_fusion=plan.mixed_fusion,
        mixed_precision=plan.mixed_precision,
        progress=how.progress,
    )


def find_bundle(measured: Measured, folders: Sequence[Path], side: str) -> Path:
    """The bundle that holds the file of this row, by its hash. FinetDeployError when none does."""
    from finet_deploy.export import read_bundle

    named = Path(measured.row.bundle).name
    as_measured = (measured.run.folder.resolve() / measured.row.bundle).resolve()
    candidates = [as_measured] if not folders else []
    for folder in folders:
        inside = sorted(path.parent for path in folder.glob("*/manifest.json"))[:MAX_BUNDLES]
        candidates += [folder, *sorted(inside, key=lambda path: path.name != named)]
    damaged: list[str] = []
    for path in candidates:
        if not (path / "manifest.json").is_file():
            continue
        try:
            bundle = read_bundle(path)
        except FinetDeployError as error:
            damaged.append(str(error))
            continue
        if any(
            _is(entry.runtime, entry.sha256, measured.row) for entry in bundle.manifest.artifacts.values()
        ):
            return path
    where = ", ".join(map(str, folders)) or str(as_measured)
    raise FinetDeployError(
        f"the bundle that {side.upper()} measured as {measured.label!r} is not here"
        + (f" ({'; '.join(damaged[:3])})" if damaged else ""),
        where=where,
        do=f"say where it is with --{side}-bundles DIR",
    )


def _is(runtime: str, sha256: str, row: Row) -> bool:
    return (runtime, sha256) == (row.artifact.runtime, row.artifact.sha256)


def _with(
    changes: Changes,
    suspects: dict[tuple[str, str, str, str, int], RowChange],
    runs: Sequence[tuple[_Planned, Run]],
) -> Changes:
    """The verdicts of the confirming runs, all allowed for together, in the place of the first ones."""
    labels = [(run.job.rows[0].label, run.job.rows[1].label) for _, run in runs]
    side = Side("the confirming run", [run for _, run in runs])
    judged = compare_sides(side, None, options=changes.options, named=labels)
    again: dict[tuple[str, str, str, str, int], RowChange] = {}
    for (plan, run), pair in zip(runs, labels):
        for match in plan.matches:
            row = next(
                row
                for row in judged.rows
                if (row.device, row.network, row.runtime, row.threads)
                == (match.device, " → ".join(pair), match.runtime, match.threads)
            )
            again[_key(match)] = _replaced(suspects[_key(match)], row, run, changes.options)
    rows = tuple(again.get(_key(row), row) for row in changes.rows)
    return msgspec.structs.replace(changes, rows=rows)


def _replaced(old: RowChange, row: RowChange, run: Run, options: Options) -> RowChange:
    before = f"first {old.verdict}" + (f", {old.ratio.value - 1:+.1%}" if old.ratio else "")
    return msgspec.structs.replace(
        row,
        network=old.network,
        precision=old.precision,
        facts=old.facts,
        notes=(*old.notes, *row.notes, f"measured again, both sides in one run ({before})"),
        confirmed=str(run.folder),
        failures=failures_of(row.verdict, old.facts, options),
    )
