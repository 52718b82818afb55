"""Successive halving: many candidates measured briefly, few of them thoroughly. Pure: measuring is a callback.

Each rung gets an equal share of the time that is left and keeps the best third of its entrants (Karnin, Koren and
Somekh, "Almost Optimal Exploration in Multi-Armed Bandits", ICML 2013, with a third for the half, as in Li and others,
"Hyperband", JMLR 18, 2018). Every rung measures the default too, so that what is compared is a ratio paired by round.
The last rung has one entrant: its rounds are fresh, so the luck that made it win before is not in its figures.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["KEEP", "LAST_ROUNDS", "MOST_ROUNDS", "Halved", "Rung", "halve", "most_entrants", "rung_sizes"]

KEEP = 3  # one in so many goes on
LAST_ROUNDS = 6  # fewer rounds cannot have a median's interval of 95 %
LEAST_LAST_ROUNDS = 3
MOST_ROUNDS = 20
COMPANIONS = 1  # the default, in each round
LAST_COMPANIONS = 2  # and its twin (A/A), which gives the noise floor

NO_TIME = "no time: the budget was not enough to measure it"
NO_TIME_LEFT = "no time: the budget was not enough to measure it further"


@dataclass(frozen=True)
class Rung:
    """What is to be measured. number: from 0. last: the one entrant against the default, with the A/A row."""

    number: int
    entrants: tuple[str, ...]
    rounds: int
    last: bool


# Entrant -> its score, higher is better, or why there is none.
Measure = Callable[[Rung], Mapping[str, float | str]]


@dataclass
class Halved:
    """winner: None when nobody was left. rungs: with who was kept. why_not: of everybody else."""

    winner: str | None = None
    rungs: list[tuple[Rung, tuple[str, ...]]] = field(default_factory=list)
    why_not: dict[str, str] = field(default_factory=dict)


def rung_sizes(count: int) -> list[int]:
    """Entrants by rung: 20 -> [20, 7, 3, 1]. Empty for none."""
    sizes = [count] if count > 0 else []
    while sizes and sizes[-1] > 1:
        sizes.append(math.ceil(sizes[-1] / KEEP))
    return sizes


def _least_visits(count: int) -> int:
    """Visits of a rung with the fewest rounds that it may have."""
    return LEAST_LAST_ROUNDS * (1 + LAST_COMPANIONS) if count == 1 else count + COMPANIONS


def most_entrants(count: int, visits: float) -> int:
    """How many of `count` a search that may make this many visits can start with, down to its last rung."""
    for entrants in range(count, 0, -1):
        if sum(map(_least_visits, rung_sizes(entrants))) <= visits:
            return entrants
    return 0


def _rounds(entrants: int, visits: float) -> int:
    """How often a rung may visit each of its entrants: of the visits that are left, its share, at least its least."""
    later = rung_sizes(entrants)[1:]
    reserved = sum(map(_least_visits, later))
    share = min(visits - reserved, max(visits / (1 + len(later)), _least_visits(entrants)))
    each = entrants + COMPANIONS if later else 1 + LAST_COMPANIONS
    return max(1, min(int(share / each + 1e-9), MOST_ROUNDS))


def halve(
    entrants: Sequence[str],
    measure: Measure,
    *,
    visits_left: Callable[[], float],
    recorded: Callable[[int], Rung | None] = lambda number: None,
) -> Halved:
    """Find the entrant with the highest score. entrants: the most promising first: the last ones go for lack of time.

    visits_left: how many more visits the budget allows. recorded: a rung that an earlier process began, to be gone on
    with as it was planned.
    """
    found, alive = Halved(), list(dict.fromkeys(entrants))
    while alive:
        number = len(found.rungs)
        rung = recorded(number) or _plan(number, alive, visits_left())
        late = NO_TIME_LEFT if number else NO_TIME
        entering = set() if rung is None else set(rung.entrants)
        found.why_not |= {name: late for name in alive if name not in entering}
        if rung is None:
            return found
        scores = measure(rung)
        ranked = _ranked(rung.entrants, scores)
        found.why_not |= {name: text for name in rung.entrants if isinstance(text := scores[name], str)}
        kept = ranked[:1] if rung.last else ranked[: math.ceil(len(rung.entrants) / KEEP)]
        found.why_not |= dict.fromkeys(ranked[len(kept) :], f"slower than others in rung {number + 1}")
        found.rungs.append((rung, tuple(kept)))
        if rung.last:
            found.winner = kept[0] if kept else None
            return found
        alive = kept
    return found


def _plan(number: int, alive: Sequence[str], visits: float) -> Rung | None:
    """The next rung, with as many of `alive`, best first, as there is time for; None when there is none."""
    count = most_entrants(len(alive), visits)
    if count == 0:
        return None
    return Rung(number, tuple(alive[:count]), _rounds(count, visits), last=count == 1)


def _ranked(entrants: Sequence[str], scores: Mapping[str, float | str]) -> list[str]:
    """Those with a score, best first; equal ones in the order in which they came."""
    known = {name: score for name in entrants if not isinstance(score := scores[name], str)}
    return sorted(known, key=lambda name: -known[name])
