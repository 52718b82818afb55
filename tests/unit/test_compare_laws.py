"""What holds of every comparison, whatever was measured."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from finet_deploy.bench.statistics import noise_floor
from finet_deploy.compare import compare_sides
from finet_deploy.compare.evidence import against, holm, mean_of, paired_shift, unpaired_shift
from tests.compare_runs import AA, simulated_side

OPPOSITE = {"faster": "slower", "slower": "faster", "new": "missing", "missing": "new"}
ROUNDS = 5
FEW = settings(max_examples=25, deadline=None)

# Latencies of a row: a level, and by how much each round lies off it. Whole ns, so that scaling is exact.
level = st.integers(1_000_000, 50_000_000)
off = st.lists(st.integers(-60, 60), min_size=ROUNDS, max_size=ROUNDS)
column = st.tuples(level, off).map(lambda drawn: [drawn[0] * (1000 + part) // 1000 for part in drawn[1]])


@st.composite
def tables(draw, shared: bool | None = None):
    """Columns of BASE and of NEW: rows `a` and `b` of other files, an A/A row, and perhaps a row of the same file."""
    near = draw(st.sampled_from([1.0, 0.5, 0.97, 1.03]))
    base = {"a": ("a1", draw(column)), AA + "a": ("a1", draw(column))}
    new = {"a": ("a2", [int(x * near) for x in draw(column)]), AA + "a": ("a2", draw(column))}
    if draw(st.booleans()):
        base["b"], new["b"] = ("b1", draw(column)), ("b2", draw(column))
    if draw(st.booleans()) if shared is None else shared:
        base["ref"], new["ref"] = ("ref", draw(column)), ("ref", draw(column))
    if draw(st.booleans()):
        new["only new"] = ("n", draw(column))
    return base, new


def compared(base, new):
    rows = compare_sides(simulated_side("BASE", base), simulated_side("NEW", new)).rows
    return {row.network: row for row in rows}


def times(columns, factor):
    return {name: (file, [factor * ns for ns in latencies]) for name, (file, latencies) in columns.items()}


@FEW
@given(tables())
def test_swapping_base_and_new_swaps_faster_and_slower_and_inverts_the_ratio(pair):
    one, other = compared(*pair), compared(*reversed(pair))
    assert one.keys() == other.keys()
    for name, row in one.items():
        back = other[name]
        assert back.verdict == OPPOSITE.get(row.verdict, row.verdict)
        assert (row.p_adjusted is None) == (back.p_adjusted is None)
        if row.ratio is not None:
            assert back.ratio.value == pytest.approx(1 / row.ratio.value)
            assert (back.ratio.low, back.ratio.high) == pytest.approx((1 / row.ratio.high, 1 / row.ratio.low))
            assert back.p_value == pytest.approx(row.p_value, abs=1e-12)


@FEW
@given(tables(), st.sampled_from([2, 3, 10]))
def test_a_machine_that_is_slower_by_one_factor_on_both_sides_changes_nothing(pair, factor):
    before, after = compared(*pair), compared(*(times(columns, factor) for columns in pair))
    for name, row in before.items():
        assert (after[name].verdict, after[name].suspect) == (row.verdict, row.suspect)
        if row.ratio is not None:
            assert after[name].ratio.value == pytest.approx(row.ratio.value)


@FEW
@given(tables(shared=True), st.sampled_from([2, 3, 10]))
def test_with_a_row_of_the_same_file_a_slower_machine_on_one_side_changes_nothing(pair, factor):
    base, new = pair
    before, after = compared(base, new), compared(base, times(new, factor))
    for name, row in before.items():
        assert after[name].verdict == row.verdict
        if row.ratio is not None:
            assert row.evidence == "referenced"
            assert after[name].ratio.value == pytest.approx(row.ratio.value)


@FEW
@given(tables())
def test_a_run_against_itself_is_unchanged_in_every_row(pair):
    _, new = pair
    assert {row.verdict for row in compared(new, new).values()} == {"unchanged"}


@FEW
@given(tables(shared=True))
def test_the_same_figures_under_other_hashes_are_never_called_a_change(pair):
    base, _ = pair
    again = {name: (file if name == "ref" else file + "'", ns) for name, (file, ns) in base.items()}
    for row in compared(base, again).values():
        assert row.verdict in ("unchanged", "cannot tell")
        assert not row.suspect
        assert row.ratio is None or row.ratio.value == pytest.approx(1)


residuals = st.lists(st.floats(-0.2, 0.2), min_size=3, max_size=12).filter(lambda r: np.std(r) > 1e-6)


@given(residuals, st.floats(0, 0.5), st.floats(1, 20))
def test_more_noise_never_makes_a_change_surer_nor_its_interval_narrower(parts, change, factor):
    parts = [part - float(np.mean(parts)) for part in parts]
    zero = dict.fromkeys(range(len(parts)), 0.0)
    quiet, noisy = ([dict(enumerate(change + scale * part for part in parts))] for scale in (1.0, factor))
    for shift in (
        lambda new: paired_shift([(new[0], zero)]),
        lambda new: unpaired_shift(new, [dict(enumerate(parts))]),
        lambda new: unpaired_shift(new, [dict(enumerate(parts))], allowance=0.1),
    ):
        assert shift(noisy).p_value >= shift(quiet).p_value - 1e-9
        assert shift(noisy).half_width >= shift(quiet).half_width - 1e-9
    floors = [noise_floor(paired_shift([(run[0], zero)]).estimate) for run in (quiet, noisy)]
    assert floors[1] >= floors[0] - 1e-9


@given(residuals, residuals)
def test_the_tests_are_students_and_welchs(one, other):
    logs = [dict(enumerate(values)) for values in (one, other)]
    shift = unpaired_shift([logs[0]], [logs[1]])
    expected = stats.ttest_ind(one, other, equal_var=False)
    assert shift.p_value == pytest.approx(expected.pvalue, abs=1e-9)
    assert (shift.mean - shift.half_width, shift.mean + shift.half_width) == pytest.approx(
        tuple(expected.confidence_interval()), abs=1e-9
    )
    both = min(len(one), len(other))
    differences = np.subtract(one[:both], other[:both])
    assume(differences.std() > 1e-9)
    assert paired_shift([tuple(logs)]).p_value == pytest.approx(
        stats.ttest_1samp(differences, 0).pvalue, abs=1e-9
    )


@given(residuals, st.floats(0.01, 0.3), st.floats(-0.5, 0.5))
def test_an_allowance_widens_the_interval_and_a_change_within_it_is_nothing(parts, allowance, change):
    base, new = dict(enumerate(parts)), dict(enumerate(part + change for part in parts))
    plain, wide = (unpaired_shift([new], [base], allowance=a) for a in (0.0, allowance))
    assert wide.half_width == pytest.approx(plain.half_width + allowance)
    assert wide.p_value >= plain.p_value
    if abs(change) <= allowance:
        assert wide.p_value == pytest.approx(1)


def test_runs_that_scatter_more_than_their_rounds_make_the_interval_wider():
    near = [{0: x, 1: x + 0.01, 2: x - 0.01} for x in (0.0, 0.001, 0.002)]
    far = [{0: x, 1: x + 0.01, 2: x - 0.01} for x in (0.0, 0.2, -0.2)]
    base = [{0: 1.0, 1: 1.01, 2: 0.99}]
    assert unpaired_shift(far, base).half_width > 10 * unpaired_shift(near, base).half_width
    # Three runs are surer than one, where they agree.
    assert unpaired_shift(near, base).error < unpaired_shift(near[:1], base).error


def test_a_reference_that_misses_a_round_does_not_leave_the_other_ones_level_there():
    references = [{0: 5.0, 1: 5.1}, {0: 1.0, 1: 1.1, 2: 1.2}]
    found = against({0: 3.0, 1: 3.1, 2: 3.2, 3: 9.0}, references, levels=[5.0, 1.0])
    assert found == pytest.approx({0: 3.0, 1: 3.0, 2: 3.0})  # round 3 has no reference at all
    assert mean_of([{0: 1.0, 1: 2.0}, {0: 3.0}]) == {0: 2.0, 1: 2.0}


@pytest.mark.parametrize("rounds", [{}, {0: 1.0}, {0: 1.0, 5: 2.0}])
def test_below_two_rounds_in_common_there_is_no_shift(rounds):
    assert paired_shift([(rounds, {0: 1.0, 1: 1.0})]) is None
    assert paired_shift([]) is None
    if len(rounds) < 2:
        assert unpaired_shift([rounds], [{0: 1.0, 1: 1.0}]) is None
    assert unpaired_shift([], [{0: 1.0, 1: 1.0}]) is None


def test_without_scatter_any_difference_is_sure_and_none_is_none():
    same, other = {0: 1.0, 1: 1.0}, {0: 1.5, 1: 1.5}
    assert (paired_shift([(same, same)]).p_value, paired_shift([(other, same)]).p_value) == (1, 0)
    assert math.isclose(paired_shift([(other, same)]).estimate.low, math.exp(0.5))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holm_only_makes_p_values_larger_keeps_their_order_and_does_not_mind_theirs(values):
    adjusted = holm(values)
    assert all(value <= new <= 1 for value, new in zip(values, adjusted))
    assert min(adjusted) == pytest.approx(min(1, len(values) * min(values)))
    for (a, new_a), (b, new_b) in permutations(zip(values, adjusted), 2):
        assert a > b or new_a <= new_b
    order = np.argsort(values)[::-1]
    assert holm([values[i] for i in order]) == pytest.approx([adjusted[i] for i in order])


def test_holm_on_the_example_of_the_textbooks():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
