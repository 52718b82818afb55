"""The figures: invariances, known values, coverage, and no claim within the noise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finet_deploy.bench.statistics import (
    Estimate,
    best_coverage,
    images_per_second,
    median_estimate,
    noise_floor,
    paired_ratio,
    percentile_ms,
    unpaired_ratio,
    verdict,
)

rates = st.lists(st.floats(0.01, 1e5), min_size=2, max_size=12)


@settings(max_examples=40, deadline=None)
@given(rates, st.randoms(use_true_random=False))
def test_the_interval_does_not_depend_on_the_order_of_the_rounds(values, random):
    shuffled = list(values)
    random.shuffle(shuffled)
    assert median_estimate(shuffled) == median_estimate(values)


@settings(max_examples=40, deadline=None)
@given(rates)
def test_the_interval_contains_the_point_and_lies_within_the_values(values):
    estimate = median_estimate(values)
    assert min(values) <= estimate.low <= estimate.value <= estimate.high <= max(values)
    assert estimate.rounds == len(values)


@settings(max_examples=40, deadline=None)
@given(rates, st.sampled_from([0.125, 0.5, 4.0, 1024.0]))
def test_another_unit_scales_the_estimate_and_its_interval(values, factor):
    estimate, scaled = median_estimate(values), median_estimate([value * factor for value in values])
    assert (scaled.value, scaled.low, scaled.high) == pytest.approx(
        (estimate.value * factor, estimate.low * factor, estimate.high * factor), rel=1e-12
    )


@settings(max_examples=20, deadline=None)
@given(rates)
def test_the_ratio_of_identical_samples_is_exactly_one(values):
    by_round = dict(enumerate(values))
    ratio = paired_ratio(by_round, dict(by_round))
    assert (ratio.value, ratio.low, ratio.high) == (1.0, 1.0, 1.0)


def test_ratios_are_taken_within_a_round_so_that_common_drift_cancels():
    drift = [1.0, 0.7, 0.4, 0.9, 0.5]
    ratio = paired_ratio({r: 22 * d for r, d in enumerate(drift)}, {r: 20 * d for r, d in enumerate(drift)})
    assert ratio.low == pytest.approx(1.1) == ratio.high


def test_only_rounds_that_both_rows_have_are_paired():
    assert paired_ratio({0: 1.0, 2: 3.0}, {1: 1.0}) is None
    ratio = paired_ratio({0: 2.0, 2: 3.0}, {0: 1.0, 1: 9.0})
    assert (ratio.value, ratio.rounds, ratio.low) == (2.0, 1, None)


def test_the_interval_covers_the_true_median_as_often_as_it_says():
    random = np.random.default_rng(7)
    trials, hits = 600, 0
    for _ in range(trials):
        # Skewed, as run times are: log-normal with median 1.
        estimate = median_estimate(list(np.exp(random.normal(0, 0.05, size=10))))
        hits += estimate.low <= 1 <= estimate.high
    assert 0.90 <= hits / trials <= 0.99


def test_few_rounds_cannot_cover_and_the_bound_says_so():
    assert best_coverage(3) == 0.75
    assert best_coverage(5) < 0.95 < best_coverage(6)
    random = np.random.default_rng(8)
    estimates = [median_estimate(list(random.normal(size=3))) for _ in range(400)]
    assert np.mean([e.low <= 0 <= e.high for e in estimates]) <= best_coverage(3) + 0.06


def test_one_round_has_no_interval_and_none_is_an_error():
    estimate = median_estimate([5.0])
    assert (estimate.value, estimate.low, estimate.high) == (5.0, None, None)
    with pytest.raises(ValueError, match="no values"):
        median_estimate([])


def test_throughput_is_one_over_the_median_or_runs_over_total_time():
    latencies = [10_000_000, 10_000_000, 100_000_000]
    assert images_per_second(latencies, "median") == pytest.approx(100.0)
    assert images_per_second(latencies, "mean") == pytest.approx(25.0)


def test_percentiles_that_the_samples_cannot_support_are_none():
    assert percentile_ms([1_000_000] * 28, 90) is None
    assert percentile_ms([1_000_000] * 29, 90) == 1.0
    assert percentile_ms([1_000_000] * 298, 99) is None
    assert percentile_ms([1_000_000] * 299, 99) == 1.0
    assert percentile_ms([2_000_000, 4_000_000] * 50, 50) == 3.0
    assert percentile_ms([], 50) is None


def estimate(low: float, value: float, high: float) -> Estimate:
    return Estimate(value=value, low=low, high=high, rounds=5)


@pytest.mark.parametrize(
    "ratio, expected",
    [
        (estimate(1.03, 1.05, 1.07), "faster"),
        (estimate(1.019, 1.05, 1.07), "not distinguishable"),
        (estimate(0.90, 0.92, 0.95), "slower"),
        (estimate(0.90, 0.95, 0.99), "not distinguishable"),
        (estimate(0.99, 1.0, 1.01), "not distinguishable"),
        (Estimate(value=2.0, low=None, high=None, rounds=1), "not distinguishable"),
        (None, "no data"),
    ],
)
def test_a_claim_needs_the_whole_interval_outside_the_noise_floor(ratio, expected):
    floor = noise_floor(estimate(0.985, 1.0, 1.02))
    assert floor == pytest.approx(1.02)
    assert verdict(ratio, floor) == expected


def test_the_noise_floor_is_symmetric_and_unknown_without_an_interval():
    assert noise_floor(estimate(0.8, 0.9, 1.0)) == pytest.approx(1.25)
    assert noise_floor(estimate(1.0, 1.1, 1.25)) == pytest.approx(1.25)
    assert noise_floor(None) is None
    assert noise_floor(Estimate(value=1.0, low=None, high=None, rounds=1)) is None
    assert verdict(estimate(2, 3, 4), None) == "no noise floor"


@settings(max_examples=40, deadline=None)
@given(rates, rates, st.floats(0.01, 100))
def test_an_unpaired_ratio_scales_with_its_values_and_not_with_their_order(ours, theirs, factor):
    ratio = unpaired_ratio(ours, theirs)
    assert ratio.value == pytest.approx(np.median(ours) / np.median(theirs))
    assert ratio.low <= ratio.value * (1 + 1e-12) and ratio.value <= ratio.high * (1 + 1e-12)
    assert unpaired_ratio(ours[::-1], sorted(theirs)) == ratio
    scaled = unpaired_ratio([factor * value for value in ours], theirs)
    assert (scaled.low, scaled.high) == pytest.approx((factor * ratio.low, factor * ratio.high))


def test_an_unpaired_ratio_needs_values_and_two_rounds_for_an_interval():
    assert unpaired_ratio([], [1.0]) is None and unpaired_ratio([1.0], []) is None
    assert unpaired_ratio([2.0], [4.0, 5.0]).low is None
    assert unpaired_ratio([2.0], [4.0]).value == 0.5


def test_an_unpaired_interval_covers_a_true_ratio_about_as_often_as_it_says():
    random = np.random.default_rng(3)
    hits = 0
    for _ in range(120):
        ours, theirs = 90 * np.exp(random.normal(0, 0.05, 11)), 100 * np.exp(random.normal(0, 0.02, 11))
        ratio = unpaired_ratio(list(ours), list(theirs))
        hits += ratio.low <= 0.9 <= ratio.high
    assert hits >= 105


@pytest.mark.parametrize("percent", [50, 90, 99])
def test_percentiles_and_medians_are_numpys_to_the_last_bit(percent):
    for seed in range(300):
        random = np.random.default_rng(seed)
        latencies = random.integers(1, 2 ** random.integers(2, 50), random.integers(1, 400)).tolist()
        assert percentile_ms(latencies, percent) in (None, float(np.percentile(latencies, percent)) / 1e6)
        assert images_per_second(latencies, "median") == 1e9 / float(np.median(latencies))
    # Found by search: from its lower end this one is another number.
    latencies = [53_621_445] * 622 + [62_748_137] * 70
    assert percentile_ms(latencies, percent) in (None, float(np.percentile(latencies, percent)) / 1e6)


@pytest.mark.parametrize("count", [2, 3, 8, 151, 1100])
def test_the_interval_is_that_of_resampled_medians_however_many_are_drawn_at_once(count):
    values = np.random.default_rng(count).uniform(1, 100, count)
    picks = np.random.default_rng(0).integers(count, size=(10_000, count))
    medians = np.median(np.sort(values)[picks], axis=1)
    estimate = median_estimate(list(values))
    tails = np.quantile(medians, [(1 - 0.95) / 2, 1 - (1 - 0.95) / 2])
    assert [estimate.low, estimate.high] == list(tails)
