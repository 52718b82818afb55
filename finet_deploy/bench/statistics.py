"""Numbers from samples: throughput, percentiles, bootstrap intervals, paired ratios, noise floor, verdict.

Pure functions of numbers. The unit of replication is the round (a fresh process), not the inference: samples of one
process agree with each other far better than processes do, so intervals are taken over rounds.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np

__all__ = [
    "CONFIDENCE",
    "Estimate",
    "Verdict",
    "best_coverage",
    "images_per_second",
    "median_estimate",
    "noise_floor",
    "paired_ratio",
    "percentile_ms",
    "unpaired_ratio",
    "verdict",
]

CONFIDENCE = 0.95
RESAMPLES = 10_000
Verdict = Literal["baseline", "faster", "slower", "not distinguishable", "no noise floor", "no data"]


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A median over `rounds` values and its bootstrap interval; no interval from a single round."""

    value: float
    low: float | None
    high: float | None
    rounds: int

    def times(self, factor: float) -> Estimate:
        """The same in another unit: `factor` is positive and exact."""
        low, high = (None if end is None else end * factor for end in (self.low, self.high))
        return Estimate(value=self.value * factor, low=low, high=high, rounds=self.rounds)


def images_per_second(latencies_ns: Sequence[int], statistic: Literal["median", "mean"]) -> float:
    """Throughput of one visit at batch 1: one over the median latency, or runs over total time (`mean`)."""
    if statistic == "mean":
        return len(latencies_ns) * 1e9 / sum(latencies_ns)
    ordered = sorted(latencies_ns)
    return 1e9 / ((ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2)


def percentile_ms(latencies_ns: Sequence[int], percent: float) -> float | None:
    """A latency percentile in ms, linear between samples; `None` when there are too few samples to support it.

    Supported means that a distribution-free upper bound at 95 % exists, that is, that the largest of n samples lies
    above the percentile with that probability: 1 - q^n >= 0.95. That takes 29 samples for p90 and 299 for p99.
    """
    if 1 - (percent / 100) ** len(latencies_ns) < CONFIDENCE:
        return None
    ordered = sorted(latencies_ns)  # numpy's own takes 100 µs to begin, for each of ten thousand visits
    place = (len(ordered) - 1) * (percent / 100)
    share = place - math.floor(place)
    low, high = ordered[math.floor(place)], ordered[math.ceil(place)]
    # From the nearer end, as numpy does: the last digit is the same.
    return (low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share)) / 1e6


def median_estimate(values: Sequence[float], *, seed: int = 0) -> Estimate:
    """The median of one value per round with its percentile bootstrap interval (95 %, seeded).

    The values are sorted first: the interval does not depend on the order of the rounds. `ValueError` when empty.
    """
    if not values:
        raise ValueError("no values to take a median of")
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    center = float(np.median(ordered))
    if len(ordered) == 1:
        return Estimate(value=center, low=None, high=None, rounds=1)
    below, above = _middle_ranks(len(ordered), seed)
    medians = (ordered[below] + ordered[above]) / 2
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(medians, [tail, 1 - tail])
    return Estimate(value=center, low=float(low), high=float(high), rounds=len(ordered))


@functools.lru_cache(maxsize=32)
def _middle_ranks(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Of `RESAMPLES` draws of `count` ranks out of as many, with replacement: the two ranks in the middle of each.

    They are the same one for an odd count. No value is needed to know them: every row of a table has the same.
    """
    random = np.random.default_rng(seed)
    middles = [(count - 1) // 2, count // 2]
    ranks = np.empty((RESAMPLES, 2), dtype=np.intp)
    block = max(1, (1 << 20) // count)  # of the same draws, however many are made at once
    for start in range(0, RESAMPLES, block):
        picks = random.integers(count, size=(min(block, RESAMPLES - start), count))
        ranks[start : start + block] = np.partition(picks, middles, axis=1)[:, middles]
    return ranks[:, 0].copy(), ranks[:, 1].copy()


def paired_ratio(
    row: Mapping[int, float], baseline: Mapping[int, float], *, seed: int = 0
) -> Estimate | None:
    """Median over rounds of row / baseline, over the rounds that both have; `None` when they share none."""
    shared = sorted(row.keys() & baseline.keys())
    if not shared:
        return None
    return median_estimate([row[number] / baseline[number] for number in shared], seed=seed)


def unpaired_ratio(ours: Sequence[float], theirs: Sequence[float], *, seed: int = 0) -> Estimate | None:
    """Median of `ours` over median of `theirs`, values of rounds of two runs; `None` where one has none.

    Its interval (95 %, seeded) is the percentile bootstrap's with both resampled apart: it holds how far the rounds of
    each run lie from each other, and nothing of what changed between the runs. No interval from a single round.
    """
    if not ours or not theirs:
        return None
    above, below = (np.sort(np.asarray(values, dtype=np.float64)) for values in (ours, theirs))
    center, rounds = float(np.median(above) / np.median(below)), min(len(above), len(below))
    if rounds == 1:
        return Estimate(value=center, low=None, high=None, rounds=1)
    random = np.random.default_rng(seed)
    medians = [
        np.median(values[random.integers(len(values), size=(RESAMPLES, len(values)))], axis=1)
        for values in (above, below)
    ]
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(medians[0] / medians[1], [tail, 1 - tail])
    return Estimate(value=center, low=float(low), high=float(high), rounds=rounds)


def noise_floor(same_file_ratio: Estimate | None) -> float | None:
    """By which factor (>= 1) two rows of the very same file may seem to differ; `None` when it is not known.

    It is the end of the A/A ratio's interval that lies farthest from 1, in either direction.
    """
    if same_file_ratio is None or same_file_ratio.low is None or same_file_ratio.high is None:
        return None
    return math.exp(max(abs(math.log(same_file_ratio.low)), abs(math.log(same_file_ratio.high))))


def verdict(ratio: Estimate | None, floor: float | None) -> Verdict:
    """A claim only where the ratio's whole interval lies outside [1 / floor, floor]."""
    if ratio is None:
        return "no data"
    if floor is None:
        return "no noise floor"
    if ratio.low is None or ratio.high is None:
        return "not distinguishable"
    if ratio.low > floor:
        return "faster"
    if ratio.high < 1 / floor:
        return "slower"
    return "not distinguishable"


def best_coverage(rounds: int) -> float:
    """The highest coverage that any interval within the values' range can have for a median: 1 - 2^(1-n).

    The median lies outside the range of n independent values when all fall on one side of it.
    """
    return 1 - 2.0 ** (1 - rounds)
