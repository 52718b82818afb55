"""The laws of a search: the best survives, the budget holds, nobody vanishes, and the Pareto front is one."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finet_deploy.errors import UsageError
from finet_deploy.tune.budget import Budget, format_seconds, parse_seconds
from finet_deploy.tune.halving import (
    MOST_ROUNDS,
    NO_TIME,
    Rung,
    halve,
    most_entrants,
    rung_sizes,
)
from finet_deploy.tune.pareto import dominates, pareto_front

EXAMPLES = settings(max_examples=80, deadline=None)

SCORES = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=4),
    st.floats(0.1, 10, allow_nan=False),
    min_size=1,
    max_size=30,
)


class Lane:
    """Measures without noise and counts visits: `each` is what one takes of the `visits` that there are."""

    def __init__(self, scores: dict[str, float | str], visits: float, each: float = 1.0) -> None:
        self.scores, self.left, self.each = scores, visits, each
        self.rungs: list[Rung] = []

    def visits_left(self) -> float:
        return self.left / self.each

    def __call__(self, rung: Rung) -> dict[str, float | str]:
        self.rungs.append(rung)
        self.left -= self.each * rung.rounds * (len(rung.entrants) + (2 if rung.last else 1))
        return {name: self.scores[name] for name in rung.entrants}

    def run(self, **options):
        return halve(list(self.scores), self, visits_left=self.visits_left, **options)


@EXAMPLES
@given(SCORES, st.floats(0, 500))
def test_without_noise_the_best_of_those_that_were_measured_always_survives(scores, visits):
    lane = Lane(scores, visits)
    found = lane.run()
    if found.winner is None:
        assert lane.rungs == []
        return
    first = lane.rungs[0].entrants
    assert scores[found.winner] == max(scores[name] for name in first)
    assert [rung.last for rung in lane.rungs] == [False] * (len(lane.rungs) - 1) + [True]
    assert lane.rungs[-1].entrants == (found.winner,)


@EXAMPLES
@given(SCORES)
def test_with_time_enough_the_best_of_all_survives_and_everyone_is_measured(scores):
    lane = Lane(scores, 10_000)
    found = lane.run()
    assert scores[found.winner] == max(scores.values())
    assert lane.rungs[0].entrants == tuple(scores)
    assert [len(rung.entrants) for rung in lane.rungs] == rung_sizes(len(scores))
    assert lane.rungs[-1].rounds == MOST_ROUNDS


@EXAMPLES
@given(SCORES, st.floats(0, 300), st.floats(0.01, 20))
def test_never_more_visits_than_the_budget_allows(scores, seconds, each):
    lane = Lane(scores, seconds, each)
    lane.run()
    assert lane.left >= -1e-6 * max(1.0, seconds)


@EXAMPLES
@given(SCORES, st.floats(0, 300))
def test_everyone_wins_or_has_a_reason_and_nobody_both(scores, visits):
    found = Lane(scores, visits).run()
    assert set(found.why_not) == set(scores) - {found.winner}


@EXAMPLES
@given(st.integers(1, 40), st.integers(0, 100))
def test_what_is_dropped_for_time_are_the_last_and_no_more_than_need_be(count, visits):
    names = [f"n{i:02}" for i in range(count)]
    lane = Lane(dict.fromkeys(names, 1.0), visits)
    found = lane.run()
    measured = lane.rungs[0].entrants if lane.rungs else ()
    assert measured == tuple(names[: len(measured)])
    assert all(found.why_not[name] == NO_TIME for name in names[len(measured) :])
    least = [count + 1 if count > 1 else 9 for count in rung_sizes(len(measured) + 1)]
    assert len(measured) == count or sum(least) > visits
    assert most_entrants(count, visits) == len(measured)


@EXAMPLES
@given(st.integers(1, 200))
def test_rungs_shrink_to_one_and_keep_a_third_rounded_up(count):
    sizes = rung_sizes(count)
    assert sizes[0] == count
    assert sizes[-1] == 1
    assert all(after == math.ceil(before / 3) for before, after in itertools.pairwise(sizes))


def test_later_rungs_have_more_rounds_because_each_has_its_share_of_the_time():
    lane = Lane({f"n{i}": float(i) for i in range(20)}, 160)
    lane.run()
    rounds = [rung.rounds for rung in lane.rungs]
    assert rounds == sorted(rounds)
    assert rounds[-1] > rounds[0]


def test_equal_scores_go_to_the_one_that_came_first_and_no_score_goes_out_with_the_reason():
    scores = {"a": "it died", "b": 2.0, "c": 2.0, "d": 1.0}
    lane = Lane(scores, 1000)
    found = lane.run()
    assert found.winner == "b"
    assert found.why_not["a"] == "it died"
    assert found.why_not["d"] == "slower than others in rung 1"
    assert lane.rungs[1].entrants == ("b", "c")


def test_when_nobody_has_a_score_nobody_wins():
    assert Lane({"a": "died", "b": "died"}, 1000).run().winner is None
    assert halve([], Lane({}, 10), visits_left=lambda: 10.0).winner is None


def test_a_last_rung_without_a_figure_has_no_winner():
    calls = []

    def fails_at_last(rung):
        calls.append(rung)
        return dict.fromkeys(rung.entrants, "died at last" if rung.last else 1.0)

    found = halve(["a", "b"], fails_at_last, visits_left=lambda: 1000.0)
    assert found.winner is None
    assert [rung.last for rung in calls] == [False, True]
    assert found.why_not == {"a": "died at last", "b": "slower than others in rung 1"}


def test_a_rung_that_was_begun_is_gone_on_with_as_it_was_planned():
    begun = Rung(0, ("a", "c"), 4, False)
    lane = Lane({"a": 1.0, "b": 5.0, "c": 2.0}, 1000)
    found = lane.run(recorded=lambda number: begun if number == 0 else None)
    assert lane.rungs[0] is begun
    assert found.winner == "c"
    assert found.why_not == {"b": NO_TIME, "a": "slower than others in rung 1"}


# The Pareto front.

POINTS = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=3), st.tuples(*[st.integers(0, 4)] * 3), max_size=20
)


@EXAMPLES
@given(POINTS)
def test_nobody_on_the_front_is_dominated_and_everybody_else_is_by_someone_on_it(points):
    front = pareto_front(points)
    for name, point in points.items():
        beaten = any(dominates(points[other], point) for other in front)
        assert beaten is (name not in front)


@EXAMPLES
@given(POINTS, st.randoms())
def test_the_front_does_not_depend_on_order_and_the_best_of_each_figure_is_on_it(points, random):
    names = list(points)
    random.shuffle(names)
    front = pareto_front({name: points[name] for name in names})
    assert front == pareto_front(points)
    for figure in range(3):
        if points:
            best = max(point[figure] for point in points.values())
            assert any(points[name][figure] == best for name in front)


@EXAMPLES
@given(*[st.tuples(*[st.integers(0, 3)] * 2)] * 3)
def test_dominance_is_a_strict_order(a, b, c):
    assert not dominates(a, a)
    assert not (dominates(a, b) and dominates(b, a))
    if dominates(a, b) and dominates(b, c):
        assert dominates(a, c)


# The budget.


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1.5h", 5400), (" 45 ", 45), ("0.5 m", 30)]
)
def test_a_length_of_time_has_a_unit_or_is_in_seconds(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "0m", "-5m", "ten", "5d", "nan", "inf", "1e9", "9" * 30])
def test_what_is_no_length_of_time_is_refused(text):
    with pytest.raises(UsageError, match="no length of time"):
        parse_seconds(text)


def test_the_budget_remembers_what_took_how_long_and_says_what_still_fits():
    now = [100.0]
    budget = Budget(60.0, lambda: now[0])
    assert budget.mean("visit", 4.0) == 4.0
    for took in (2.0, 6.0):
        done = budget.timed("visit")
        now[0] += took
        done()
    assert (budget.used, budget.left) == (8.0, 52.0)
    assert (budget.mean("visit", 9.0), budget.longest("visit", 9.0)) == (4.0, 6.0)
    assert budget.fits(52.0)
    assert not budget.fits(52.1)
    assert budget.fits(22.0, share=0.5)
    assert not budget.fits(22.1, share=0.5)
    now[0] += 1000
    assert budget.left == 0.0
    assert (format_seconds(42.4), format_seconds(570)) == ("42 s", "9 min 30 s")
