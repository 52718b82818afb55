"""From what was measured or counted to rows, the winner, and a sentence that says what was found."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from finet_deploy.bench.statistics import Estimate
from finet_deploy.report.numbers import format_estimate
from finet_deploy.tune.count import Counted
from finet_deploy.tune.halving import Halved
from finet_deploy.tune.model import Candidate, TuneRow
from finet_deploy.tune.pareto import pareto_front
from finet_deploy.tune.race import Race

__all__ = ["Judged", "judge_counts", "judge_race"]

EXACT = math.inf  # fp32 files hold a certificate of 1e-5: what rounding leaves is no difference between them


@dataclass(frozen=True)
class Judged:
    """rows: in the order of the candidates, the default first. sentence: what was found, for people."""

    rows: tuple[TuneRow, ...]
    beats_default: bool
    sentence: str


def judge_race(candidates: Sequence[Candidate], race: Race, halved: Halved) -> Judged:
    """The default stays the winner unless its rival's whole interval, in fresh rounds, lies above the noise floor."""
    rows = []
    for candidate in candidates:
        rung, figures = race.summaries.get(candidate.id, (None, None))
        row = TuneRow(
            candidate=candidate,
            default=candidate is candidates[0],
            winner=False,
            pareto=False,
            ratio=None,
            why_not=halved.why_not.get(candidate.id),
        )
        if rung is not None and figures is not None:
            row = msgspec.structs.replace(
                row,
                ratio=_one(figures.valid_visits) if row.default else figures.ratio,
                images_per_second=figures.images_per_second,
                p50_ms=figures.p50_ms,
                peak_rss_mib=figures.peak_rss_mib,
                verdict=figures.verdict,
                rung=rung + 1,
                rounds=figures.valid_visits,
            )
        rows.append(row)
    rival = next((row for row in rows if row.candidate.id == halved.winner), None)
    beats = rival is not None and rival.verdict == "faster"
    if rival is not None and not beats:
        lost = msgspec.structs.replace(
            rival, why_not=f"the default is kept: {_why_kept(rival, race.noise_floor)}"
        )
        rows[rows.index(rival)] = lost
    return _judged(rows, rival, beats, _race_sentence(rival, beats, race))


def _one(rounds: int) -> Estimate:
    return Estimate(value=1.0, low=None, high=None, rounds=rounds)


def _race_sentence(rival: TuneRow | None, beats: bool, race: Race) -> str:
    if rival is None or rival.ratio is None:
        return (
            "Nothing was measured against the default bundle to the end: the default bundle is kept. "
            "What was left out, and why, is listed"
        )
    ratio = f"{format_estimate(rival.ratio)} times the default bundle's images per second"
    fresh = f"{rival.ratio.rounds} fresh interleaved rounds"
    floor = (
        "no noise floor" if race.noise_floor is None else f"noise floor: a factor of {race.noise_floor:.3f}"
    )
    if beats:
        return f"The winner is {rival.candidate.label}: {ratio} ({fresh}; {floor})"
    return (
        f"Nothing beats the default bundle, which is kept. The best other candidate, {rival.candidate.label}, came to "
        f"{ratio} ({fresh}; {floor}): {_why_kept(rival, race.noise_floor)}"
    )


def _why_kept(rival: TuneRow, floor: float | None) -> str:
    ratio = rival.ratio
    if ratio is None or ratio.low is None or ratio.high is None:
        return "one round has no interval"
    if ratio.high < 1:
        return "it is slower"
    if ratio.low <= 1:
        return "the interval includes 1"
    if floor is None:
        return "without a noise floor nothing is claimed"
    return "the interval is not above the noise floor"


def judge_counts(candidates: Sequence[Candidate], counted: Counted, core: str) -> Judged:
    """The fewest instructions win; a count has no interval, and equal counts leave the default."""
    base = counted.instructions[candidates[0].id]
    why_not = {item.what: item.reason for item in counted.left_out}
    rows = []
    for candidate in candidates:
        count = counted.instructions.get(candidate.id)
        ratio = None if count is None else Estimate(value=base / count, low=None, high=None, rounds=1)
        rows.append(
            TuneRow(
                candidate=candidate,
                default=candidate is candidates[0],
                winner=False,
                pareto=False,
                ratio=ratio,
                instructions=count,
                rounds=int(count is not None),
                why_not=why_not.get(candidate.label),
            )
        )
    known = [row for row in rows if row.instructions is not None]
    best = min(
        known, key=lambda row: row.instructions or 0
    )  # the first of equal ones, and the default is the first
    beats = not best.default
    where = f"on {core} (emulated: a cost, not a speed)"
    if beats:
        count = best.instructions or 0
        saved = f"{count / 1e6:.2f} M instructions, the default bundle's {base / 1e6:.2f} M, {where}"
        return _judged(rows, best, True, f"The winner is {best.candidate.label}: {saved}")
    return _judged(rows, best, False, f"Nothing is cheaper than the default bundle {where}, which is kept")


def _judged(rows: Sequence[TuneRow], best: TuneRow | None, beats: bool, sentence: str) -> Judged:
    front = pareto_front(_points(rows))
    winner = best.candidate.id if best is not None and beats else rows[0].candidate.id
    marked = tuple(
        msgspec.structs.replace(
            row,
            winner=row.candidate.id == winner,
            pareto=row.candidate.id in front,
            why_not=None if row.candidate.id == winner else row.why_not,
        )
        for row in rows
    )
    return Judged(marked, beats, sentence)


def _points(rows: Sequence[TuneRow]) -> Mapping[str, tuple[float, float, float]]:
    """Candidate -> how fast, how exact, and how few cores it takes; those with a figure alone."""
    return {
        row.candidate.id: (row.ratio.value, _exactness(row.candidate), -row.candidate.threads)
        for row in rows
        if row.ratio is not None
    }


def _exactness(candidate: Candidate) -> float:
    if candidate.dtype == "float32" or candidate.sqnr_db is None:
        return EXACT
    return candidate.sqnr_db
