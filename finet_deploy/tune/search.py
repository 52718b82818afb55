"""The whole search: bundles, then rungs on a device or counts on an emulated core, then the result's folder."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finet_deploy import __version__
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.export import Bundle, read_bundle
from finet_deploy.export.request import PRECISIONS
from finet_deploy.files import resolve_inside
from finet_deploy.tune.budget import Budget, format_seconds
from finet_deploy.tune.build import Network, build_all, exporter
from finet_deploy.tune.count import count_all
from finet_deploy.tune.folder import Plan, Workplace
from finet_deploy.tune.halving import NO_TIME, NO_TIME_LEFT, halve
from finet_deploy.tune.model import Candidate, LeftOut, Recipe, RungReport, TuneResult
from finet_deploy.tune.place import Place
from finet_deploy.tune.race import Race, Steps, no_steps
from finet_deploy.tune.space import candidates as all_candidates
from finet_deploy.tune.verdict import Judged, judge_counts, judge_race
from finet_deploy.verify import Limits

__all__ = ["Asked", "tune"]

Tell = Callable[[str], None]
GIVEN = "bundle"  # the name of a bundle that was given


@dataclass(frozen=True)
class Asked:
    """What to search. formats, dtypes: the default's first. threads: None for the place's own.

    identity: what else decides the result (the network and its options), as plain data: a search that goes on must
    agree in it.
    """

    subject: str
    identity: Mapping[str, Any]
    formats: tuple[str, ...]
    dtypes: tuple[str, ...]
    threads: tuple[int, ...] | None
    min_sqnr_db: float
    resume: bool = False

    def plain(self, place: Place) -> dict[str, Any]:
        """All that decides the search."""
        return {
            "tool_version": __version__,
            "place": place.name,
            "formats": self.formats,
            "dtypes": self.dtypes,
            "threads": self.threads,
            "min_sqnr_db": self.min_sqnr_db,
            **self.identity,
        }


def tune(
    asked: Asked,
    source: Bundle | Callable[[], Network],
    place: Place,
    out: Path,
    *,
    budget: Budget,
    steps: Steps = no_steps,
    note: Tell = lambda _text: None,
) -> TuneResult:
    """Search, and write the result with the winning bundle as the folder `out`.

    source: a bundle, whose files are compared as they are, or what makes the network (called when it is needed).
    Raises UsageError for what cannot be asked for, FinetDeployError for what the default bundle fails at, and lets
    Ctrl-C through: what was exported and measured stays in `<out>.unfinished` for `resume`.
    """
    work = Workplace(out, asked.plain(place), asked.resume)
    try:
        bundles, plan = _prepare(asked, source, place, work, budget, steps)
        work.write_plan(plan)
        result = _search(asked, place, work, bundles, plan, budget, steps)
        work.finish(result, bundles[result.winner.candidate.bundle].path)
    except BaseException:
        if work.discard_if_empty():
            note(f"what was done is kept in {work.path}; go on with --resume")
        raise
    return result


def _prepare(
    asked: Asked,
    source: Bundle | Callable[[], Network],
    place: Place,
    work: Workplace,
    budget: Budget,
    steps: Steps,
) -> tuple[dict[str, Bundle], Plan]:
    """The bundles by name, and the candidates: those of the search that goes on, or new ones."""
    plan = work.read_plan()
    if plan is not None:
        return _stored(plan, source, work), plan
    left_out: list[LeftOut] = []
    if isinstance(source, Bundle):
        built = {_recipe_of(source): source}
    else:
        made = _build(asked, source, place, work, budget, steps)
        built, left_out = made
    threads = place.thread_counts(asked.threads)
    found, same = all_candidates(built, formats=asked.formats, threads=threads, kinds=place.kinds())
    plan = Plan(candidates=tuple(found), left_out=(*left_out, *same))
    return {recipe.name: bundle for recipe, bundle in built.items()}, plan


def _recipe_of(bundle: Bundle) -> Recipe:
    """A given bundle is taken as it is: its own passes, whatever they were."""
    entries = list(bundle.manifest.artifacts.values())
    return Recipe(
        name=GIVEN,
        dtype=entries[0].dtype,
        passes="of the bundle",
        core=entries[0].core or "",
        formats=bundle.formats,
    )


def _build(
    asked: Asked,
    source: Callable[[], Network],
    place: Place,
    work: Workplace,
    budget: Budget,
    steps: Steps,
) -> tuple[dict[Recipe, Bundle], list[LeftOut]]:
    with steps("export", 1 + len(asked.dtypes)) as step:
        step("prepare the network")
        network = source()
        built = build_all(
            exporter(network, Limits(int8_sqnr_db=asked.min_sqnr_db)),
            work.bundles,
            dtypes=asked.dtypes,
            formats={d: tuple(f for f in asked.formats if f in PRECISIONS[d]) for d in asked.dtypes},
            cores=place.shapes(),
            budget=budget,
            tell=step,
        )
    return built.bundles, built.left_out


def _stored(plan: Plan, source: Bundle | Callable[[], Network], work: Workplace) -> dict[str, Bundle]:
    """The bundles of a plan, checked: each file must still be the candidate's."""
    names = dict.fromkeys(candidate.bundle for candidate in plan.candidates)
    if isinstance(source, Bundle):
        bundles = dict.fromkeys(names, source)
    else:
        bundles = {name: read_bundle(resolve_inside(work.bundles, name)) for name in names}
    for candidate in plan.candidates:
        if bundles[candidate.bundle].artifact(candidate.format).sha256 != candidate.sha256:
            raise FinetDeployError(
                "a bundle of the unfinished search was changed",
                where=str(bundles[candidate.bundle].path),
                do=f"remove {work.path} and start again",
            )
    return bundles


def _search(
    asked: Asked,
    place: Place,
    work: Workplace,
    bundles: Mapping[str, Bundle],
    plan: Plan,
    budget: Budget,
    steps: Steps,
) -> TuneResult:
    candidates = plan.candidates
    rungs: tuple[RungReport, ...] = ()
    left_out, notes, floor = list(plan.left_out), list[str](), None
    if place.device is None:
        judged, uncounted = _count(candidates, bundles, place, work, budget, steps)
        left_out += uncounted
    else:
        race = Race(place.device, work.rungs, bundles, candidates, budget, steps)
        place.bind(candidates)
        judged, rungs, notes = _run(race, candidates)
        floor = race.noise_floor
    if budget.used > budget.seconds:
        over = format_seconds(budget.used - budget.seconds)
        notes.append(
            f"The budget was exceeded by {over}: an export or a visit that is under way is not cut short."
        )
    return TuneResult(
        tool_version=__version__,
        created_utc=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        subject=asked.subject,
        device=None if place.device is None else place.device.info(),
        core=place.core,
        emulated=place.emulated,
        runner=None if place.device is None else place.device.runner,
        unit="instructions" if place.device is None else "images/s",
        min_sqnr_db=asked.min_sqnr_db,
        budget_seconds=budget.seconds,
        used_seconds=round(budget.used, 3),
        noise_floor=floor,
        beats_default=judged.beats_default,
        sentence=judged.sentence,
        rungs=rungs,
        rows=judged.rows,
        left_out=tuple(left_out),
        notes=tuple(notes),
    )


def _run(race: Race, candidates: Sequence[Candidate]) -> tuple[Judged, tuple[RungReport, ...], list[str]]:
    names = [candidate.id for candidate in candidates[1:]]
    halved = halve(names, race.measure, visits_left=race.visits_left, recorded=race.recorded)
    rungs = tuple(
        RungReport(entrants=rung.entrants, rounds=rung.rounds, kept=kept) for rung, kept in halved.rungs
    )
    return judge_race(candidates, race, halved), rungs, _cut_notes(race, halved.why_not)


def _count(
    candidates: Sequence[Candidate],
    bundles: Mapping[str, Bundle],
    place: Place,
    work: Workplace,
    budget: Budget,
    steps: Steps,
) -> tuple[Judged, list[LeftOut]]:
    if place.core is None:
        raise UsageError("neither a device nor a core", do="name one")
    with steps("count", len(candidates)) as step:
        counted = count_all(
            candidates, bundles, core=place.core, folder=work.counts, budget=budget, step=step
        )
    return judge_counts(candidates, counted, place.core), counted.left_out


def _cut_notes(race: Race, why_not: Mapping[str, str]) -> list[str]:
    """What the budget cost, in words."""
    notes = [
        f"Rung {number + 1}: {missing} visit{'s were' if missing > 1 else ' was'} not made, the budget was at its end."
        for number, missing in race.cut.items()
    ]
    for reason in (NO_TIME, NO_TIME_LEFT):
        dropped = sum(found == reason for found in why_not.values())
        if dropped:
            notes.append(f"{dropped} candidate{'' if dropped == 1 else 's'} dropped for {reason}.")
    return notes
