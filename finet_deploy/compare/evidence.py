"""By which factor a row became faster or slower, and how sure that is. Pure functions of numbers.

The unit is the round, as in `bench.statistics`. Everything is done on natural logarithms of images per second, where a
slowdown of 3 % is the same distance from 0 as the speed-up that undoes it: so swapping base and new swaps the verdict.

A shift is the mean over rounds with Student's interval, not the median with a bootstrap interval that tables print: it
is a figure to decide by, and the median needs about 1.6 times the rounds to be as sure. A round that went wrong
widens the interval, and so makes a call less likely, never more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import fdtrc, stdtr, stdtrit

from finet_deploy.bench.statistics import CONFIDENCE, Estimate

__all__ = ["Logs", "Shift", "against", "holm", "mean_of", "paired_shift", "unpaired_shift"]

Logs = Mapping[int, float]
"""Round -> ln(images per second)."""

EXACT = 1e-12  # a scatter or a shift below this is rounding


@dataclass(frozen=True)
class Shift:
    """ln(new / base): its mean, standard error and degrees of freedom, from so many rounds of the shorter side.

    allowance: by how much both sides may differ for a reason that was not measured (ln); the interval is that much
    wider at both ends.
    """

    mean: float
    error: float
    freedom: float
    rounds: int
    allowance: float = 0.0

    @property
    def p_value(self) -> float:
        """Chance of a shift this large in either direction when there is none beyond the allowance."""
        return min(1.0, 2 * self._tail(abs(self.mean)))

    @property
    def p_slower(self) -> float:
        """Chance of a slowdown this large when there is none beyond the allowance: for suspicion, not for a verdict."""
        return self._tail(-self.mean)

    def _tail(self, distance: float) -> float:
        beyond = distance - self.allowance
        if self.error < EXACT:
            return 0.0 if beyond > EXACT else 0.5
        return float(stdtr(self.freedom, -beyond / self.error))

    @property
    def half_width(self) -> float:
        """Of the 95 % interval, allowance included (ln)."""
        if self.error < EXACT:
            return self.allowance
        return self.allowance + float(stdtrit(self.freedom, (1 + CONFIDENCE) / 2)) * self.error

    @property
    def estimate(self) -> Estimate:
        """new / base with its 95 % interval."""
        ends = math.exp(self.mean - self.half_width), math.exp(self.mean + self.half_width)
        return Estimate(value=math.exp(self.mean), low=ends[0], high=ends[1], rounds=self.rounds)


def mean_of(rows: Sequence[Logs]) -> dict[int, float]:
    """Rows of one file, measured under several names in one run: the mean of those that a round has."""
    rounds = sorted(set().union(*rows)) if rows else []
    return {number: float(np.mean([row[number] for row in rows if number in row])) for number in rounds}


def against(row: Logs, references: Sequence[Logs], levels: Sequence[float]) -> dict[int, float]:
    """`row` less what the reference rows did in the same round, over the rounds that have any of them.

    levels: the reference rows' usual values. Without them, a reference that misses a round would leave the others'
    level there.
    """
    found = {}
    for number, value in row.items():
        moved = [ref[number] - level for ref, level in zip(references, levels) if number in ref]
        if moved:
            found[number] = value - float(np.mean(moved))
    return found


def paired_shift(pairs: Sequence[tuple[Logs, Logs]]) -> Shift | None:
    """Of two rows (new, base) of one interleaved run, or of several such runs, over the rounds that both rows have.

    None when a run has less than two such rounds.
    """
    runs = [
        {number: new[number] - base[number] for number in sorted(new.keys() & base.keys())}
        for new, base in pairs
    ]
    if not runs or any(len(run) < 2 for run in runs):
        return None
    mean, variance, freedom = _side(runs)
    return Shift(mean, math.sqrt(variance), freedom, sum(map(len, runs)))


def unpaired_shift(new: Sequence[Logs], base: Sequence[Logs], *, allowance: float = 0.0) -> Shift | None:
    """Of runs that were measured apart: Welch's difference of means; None when a run has less than two rounds.

    Of several runs a side, the scatter of their means is used where it is larger than that of their rounds explains
    (F test at 5 %).
    """
    if not new or not base or any(len(run) < 2 for run in (*new, *base)):
        return None
    (above, above_var, above_df), (below, below_var, below_df) = _side(new), _side(base)
    total = above_var + below_var
    # Welch-Satterthwaite; without scatter the degrees of freedom mean nothing.
    parts = above_var**2 / above_df + below_var**2 / below_df
    freedom = total**2 / parts if parts > 0 else above_df + below_df
    rounds = min(sum(map(len, new)), sum(map(len, base)))
    return Shift(above - below, math.sqrt(total), freedom, rounds, allowance)


def _side(runs: Sequence[Logs]) -> tuple[float, float, float]:
    """Mean, its variance, and the degrees of freedom of that variance."""
    moments = [_mean(list(run.values())) for run in runs]
    means = [mean for mean, _ in moments]
    within = sum(variance for _, variance in moments) / len(runs) ** 2
    freedom = sum(len(run) - 1 for run in runs)
    if len(runs) > 1:
        center, between = _mean(means)
        excess = between / within if within > EXACT**2 else math.inf
        if between > EXACT**2 and fdtrc(len(runs) - 1, freedom, excess) < 1 - CONFIDENCE:
            return center, between, len(runs) - 1
    return float(np.mean(means)), within, freedom


def _mean(values: Sequence[float]) -> tuple[float, float]:
    """The mean and its variance."""
    return float(np.mean(values)), float(np.var(values, ddof=1)) / len(values)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values made larger, so that among all of them one below 0.05 comes by chance in at most 5 % of comparisons.

    S. Holm, Scand. J. Statist. 6, 1979. It holds however the rows depend on each other, and they do: they share rounds.
    The whole comparison has one exit status, so it is the chance of any false call that must be small, not the
    expected share of false calls (Benjamini-Hochberg).
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, p_values[index] * (len(p_values) - rank)))
        adjusted[index] = largest
    return adjusted
