"""From two sides of runs to a verdict for every row, and one for the whole comparison."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from finet_deploy.bench.records import Run
from finet_deploy.bench.statistics import CONFIDENCE, Estimate, median_estimate, noise_floor
from finet_deploy.compare.changes import Changes, Drift, Evidence, Options, RowChange, Verdict
from finet_deploy.compare.evidence import Shift, holm, paired_shift, unpaired_shift
from finet_deploy.compare.facts import Fact, facts_of
from finet_deploy.compare.matching import Match, References, match_rows, twins
from finet_deploy.compare.sides import Measured, Side, check_comparable, differences
from finet_deploy.errors import UsageError, suggest
from finet_deploy.report.footnotes import run_notes
from finet_deploy.runner.cost import CostRow

__all__ = ["BLIND", "compare_sides", "failures_of"]

BLIND = 0.10  # an interval that reaches farther than this to either side shows nothing: "cannot tell"
SUSPICION = 0.2  # the chance at which a slowdown is worth a second look; a verdict takes much more


def compare_sides(
    base: Side,
    new: Side | None,
    *,
    options: Options | None = None,
    named: Sequence[tuple[str, str]] = (),
    said: Sequence[str] = (),
    base_costs: Sequence[CostRow] = (),
    new_costs: Sequence[CostRow] = (),
) -> Changes:
    """Compare two sides; without `new` the rows `named` of the same interleaved runs, which are pairs by round.

    said: names of rows to take as unchanged, whatever their files are: what they did is taken out of the others.

    UsageError when figures of the sides do not mean the same (other device, preset or runner), listing in what.
    """
    options = options or Options()
    if new is None and not named:
        raise UsageError("one side, and no rows to compare in it", do="name NEW, or --rows BASE NEW")
    paired, other = new is None, new or base
    _check(base, other)
    _check_said(said, base, new)
    references = (
        {} if paired else {name: References(base, other, name, said) for name in _shared(base, other)}
    )
    judged = [
        _Judged(match, base, other, references.get(match.device), paired, options)
        for match in match_rows(base, other, named)
    ]
    family = [item for item in judged if item.shift is not None and item.floor is not None]
    adjusted = holm([item.shift.p_value for item in family if item.shift])
    p_values = {id(item): p for item, p in zip(family, adjusted)}
    return Changes(
        base=tuple(str(run.folder) for run in base.runs),
        new=tuple(str(run.folder) for run in other.runs),
        options=options,
        family=len(family),
        differences=() if paired else tuple(differences(base, other)),
        warnings=tuple(_warnings(base)) + (() if paired else tuple(_warnings(other))),
        drifts=tuple(_drifts(references)),
        rows=tuple(item.row(p_values.get(id(item)), len(family), base_costs, new_costs) for item in judged),
    )


def _warnings(side: Side) -> Iterator[str]:
    """What a reader of the runs' own tables is warned of."""
    for run in side.runs:
        for note in run_notes(run):
            if note.startswith(("BUSY", "INCOMPLETE")):
                yield f"{side.name}, {run.folder}: {note}"


def _check_said(said: Sequence[str], base: Side, new: Side | None) -> None:
    if said and new is None:
        raise UsageError(
            "a reference for one interleaved run", do="its rounds are pairs: leave --reference out"
        )
    for side in (base, new) if new else ():
        known = {row.label for run in side.runs for row in run.job.rows}
        for name in said:
            if name not in known:
                do = suggest(name, known) or f"there are {', '.join(sorted(known))}"
                raise UsageError(f"no row {name!r} in {side.name}", do=do)


def _shared(base: Side, new: Side) -> list[str]:
    return [name for name in base.devices if name in new.devices]


def _check(base: Side, new: Side) -> None:
    shared = _shared(base, new)
    if not shared:
        raise UsageError(
            f"no device in common: {', '.join(base.devices)} against {', '.join(new.devices)}",
            do="compare runs of the same device",
        )
    for name in shared:
        check_comparable(base.on(name)[0], new.on(name)[0])


def _drifts(references: dict[str, References]) -> Iterator[Drift]:
    for device, found in references.items():
        for runtime in dict.fromkeys(file[0] for file in found.of("")):
            files = found.of(runtime)
            base, new = found.drift(files)
            shift = unpaired_shift(new, base)
            if shift is not None:
                names = tuple(found.label(file) for file in files)
                yield Drift(device=device, runtime=runtime, files=names, ratio=shift.estimate)


class _Judged:
    """One match, with what was measured of it; the verdict waits for how many others there are."""

    def __init__(
        self,
        match: Match,
        base: Side,
        new: Side,
        references: References | None,
        paired: bool,
        options: Options,
    ) -> None:
        self.match, self.base, self.new, self.options = match, base, new, options
        self.shift: Shift | None = None
        self.plain: Shift | None = None  # without allowance, for suspicion
        self.evidence: Evidence | None = None
        self.floor: float | None = None
        self.verdict: Verdict = "cannot tell"
        self.reason: str | None = self._obstacle()
        if self.reason is None and match.base and match.new:
            self.floor = self._noise_floor()
            self._measure(references, paired)

    def _obstacle(self) -> str | None:
        """Why there is nothing to judge, with the verdict that follows from it."""
        match = self.match
        if not match.base or not match.new:
            self.verdict = "missing" if match.base else "new"
            return (
                None if match.device in _shared(self.base, self.new) else "the other side has not this device"
            )
        shapes = [item.row.input_shape for item in (*match.base, *match.new)]
        if len(set(shapes)) > 1:
            return "other input: " + " against ".join("x".join(map(str, s)) for s in dict.fromkeys(shapes))
        if match.base[0].run.job.device.emulated:
            return "an emulated device: its times are no speeds"
        without = [
            side.name
            for side, rows in ((self.base, match.base), (self.new, match.new))
            if any(len(side.logs(item)) == 0 for item in rows)
        ]
        if without == [self.new.name]:
            self.verdict = "invalid"  # it ran before, and does not now
        return f"no valid visit in {' and '.join(without)}" if without else None

    def _measure(self, references: References | None, paired: bool) -> None:
        match = self.match
        if self._is_reference(references, paired):
            self.verdict = "unchanged"
            return
        base = [twins(self.base, item) for item in match.base]
        new = [twins(self.new, item) for item in match.new]
        if paired:
            self.evidence = "paired"
            self.shift = self.plain = paired_shift(list(zip(new, base)))
        else:
            files = references.of(match.runtime) if references else []
            if references and files:
                self.evidence = "referenced"
                sides = (self.base, match.base, base), (self.new, match.new, new)
                base, new = (
                    [references.relative(side, item.run, logs, files) for item, logs in zip(rows, found)]
                    for side, rows, found in sides
                )
            else:
                self.evidence = "apart"
            allowance = 0.0 if files else math.log1p(self.options.drift)
            self.shift = unpaired_shift(new, base, allowance=allowance)
            self.plain = unpaired_shift(new, base)
        if self.shift is None:
            self.reason = "a single round: no interval"
        elif self.floor is None:
            self.reason = "no noise floor: no A/A row of this runtime in these runs"

    def _is_reference(self, references: References | None, paired: bool) -> bool:
        """Whether both sides ran the same file, or one that is said to be unchanged: it tells what the machine did."""
        match = self.match
        if paired or references is None:
            same = {item.file for item in match.base} == {item.file for item in match.new}
            self.evidence = "same file" if paired and same else None
            return paired and same
        files = {references.found(self.base, item) for item in match.base}
        files |= {references.found(self.new, item) for item in match.new}
        file = files.pop() if len(files) == 1 else None
        if file is None:
            return False
        said = references.is_said(file)
        self.evidence = "said" if said else "same file"
        self.reason = "taken as unchanged, as was said" if said else None
        return True

    def _noise_floor(self) -> float | None:
        """From the A/A rows of this runtime in all runs of both sides, their rounds together."""
        aa: dict[int, float] = {}
        original: dict[int, float] = {}
        seen = set()
        for side, rows in ((self.base, self.match.base), (self.new, self.match.new)):
            for run in [item.run for item in rows]:
                if run.folder in seen:
                    continue
                seen.add(run.folder)
                for twin, other in _aa_rows(side, run, self.match):
                    for number in side.logs(twin).keys() & side.logs(other).keys():
                        aa[len(aa)] = side.logs(twin)[number]
                        original[len(original)] = side.logs(other)[number]
        shift = paired_shift([(aa, original)])
        return None if shift is None else noise_floor(shift.estimate)

    def row(
        self, p: float | None, family: int, base_costs: Sequence[CostRow], new_costs: Sequence[CostRow]
    ) -> RowChange:
        """The finished row. p: its adjusted p-value, when it was judged."""
        match, verdict, reason, suspect = self.match, self.verdict, self.reason, False
        if p is not None and self.shift and self.plain and self.floor:
            verdict, reason = self._decide(p, family)
            least = math.log1p(self.options.threshold)
            suspicious = self.plain.mean < -least and self.plain.p_slower < SUSPICION
            suspect = verdict == "slower" or (verdict != "faster" and suspicious)
        both = match.base and match.new
        facts = facts_of(match.base[0].row, match.new[0].row, base_costs, new_costs) if both else ()
        return RowChange(
            device=match.device,
            network=match.network,
            runtime=match.runtime,
            precision=match.precision,
            threads=match.threads,
            verdict=verdict,
            reason=reason,
            evidence=self.evidence,
            ratio=self.shift.estimate if self.shift else None,
            p_value=self.shift.p_value if self.shift else None,
            p_adjusted=p,
            noise_floor=self.floor,
            base_rate=_rate(self.base, match.base),
            new_rate=_rate(self.new, match.new),
            facts=facts,
            notes=tuple(_notes(self.base, match.base)) + tuple(_notes(self.new, match.new)),
            suspect=suspect,
            failures=failures_of(verdict, facts, self.options),
        )

    def _decide(self, p: float, family: int) -> tuple[Verdict, str | None]:
        """A change is called when it is surer than chance among all rows, and beyond noise floor and threshold."""
        assert self.shift is not None and self.plain is not None and self.floor is not None
        distance, limit = abs(self.shift.mean), 1 - CONFIDENCE
        least = math.log1p(self.options.threshold)
        if p <= limit and distance > max(math.log(self.floor), least):
            return ("faster" if self.shift.mean > 0 else "slower"), None
        if p <= limit and distance <= math.log(self.floor):
            return "unchanged", f"below the noise floor of {self.floor - 1:.1%}"
        if p <= limit:
            return "unchanged", f"below the threshold of {self.options.threshold:.1%}"
        if self.evidence == "apart":
            return "cannot tell", (
                f"measured apart, and no row in common tells what the machine did: {self.options.drift:.0%} is allowed "
                "for that; one run with both bundles would tell, or two with a row that stays the same"
            )
        if self.shift.half_width > math.log1p(BLIND):
            return "cannot tell", f"the noise would hide a change of {math.expm1(self.shift.half_width):.0%}"
        if self.shift.p_value <= limit:
            return "unchanged", f"may be chance, among {family} rows (p = {p:.2f} after Holm)"
        return "unchanged", None


def failures_of(verdict: str, facts: Sequence[Fact], options: Options) -> tuple[str, ...]:
    """Which of the kinds that fail a comparison this row has. Cost and size fail beyond the threshold only."""
    found = {"slower": ["speed"], "invalid": ["speed"], "missing": ["missing"]}.get(verdict, [])
    for fact in facts:
        grown = fact.factor is None or fact.factor > 1 + options.threshold
        measured = fact.kind in ("cost", "size")
        if fact.kind and fact.worse and (grown or not measured):
            found.append(fact.kind)
    return tuple(kind for kind in dict.fromkeys(found) if kind in options.fail_on)


def _aa_rows(side: Side, run: Run, match: Match) -> list[tuple[Measured, Measured]]:
    """The A/A rows of the match's runtime and threads, each with the row that it repeats."""
    rows = {item.row.id: item for item in side.rows(run)}
    return [
        (item, rows[item.row.aa_of])
        for item in rows.values()
        if item.row.aa_of in rows and (item.work[0], item.work[2]) == (match.runtime, match.threads)
    ]


def _rate(side: Side, rows: Sequence[Measured]) -> Estimate | None:
    rates = [math.exp(value) for item in rows for value in side.logs(item).values()]
    return median_estimate(rates) if rates else None


def _notes(side: Side, rows: Sequence[Measured]) -> Iterator[str]:
    for item in rows:
        visits = side.visits(item)
        if visits.invalid:
            reasons = "; ".join(dict.fromkeys(visit.reason for visit in visits.invalid))
            yield f"{side.name}: {len(visits.invalid)} of {_planned(item)} visits invalid ({reasons})"
        if visits.missing:
            yield f"{side.name}: {visits.missing} of {_planned(item)} visits missing"


def _planned(item: Measured) -> int:
    return sum(visit.row == item.row.id for visit in item.run.job.visits)
