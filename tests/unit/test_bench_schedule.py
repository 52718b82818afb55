"""The order of visits is balanced; presets and suites are the data that they should be."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finet_deploy.bench.schedule import plan_visits, rotation
from finet_deploy.bench.settings import load_preset, load_suite, preset_names, suite_names
from finet_deploy.errors import UsageError


@given(st.integers(1, 12), st.integers(1, 30))
def test_each_round_has_each_item_once_and_positions_are_shared_out_evenly(count, rounds):
    orders = rotation(count, rounds)
    assert len(orders) == rounds
    assert all(sorted(order) == list(range(count)) for order in orders)
    for item in range(count):
        uses = Counter(order.index(item) for order in orders)
        assert max(uses.values()) - min(uses.get(p, 0) for p in range(count)) <= 1


@given(st.integers(2, 6).map(lambda half: 2 * half))
def test_over_a_whole_square_each_item_follows_each_other_one_once(count):
    follows = Counter(pair for order in rotation(count, count) for pair in pairwise(order))
    assert set(follows.values()) == {1}
    assert len(follows) == count * (count - 1)


@given(st.lists(st.integers(1, 7), min_size=1, max_size=3), st.integers(1, 10))
def test_every_row_is_visited_once_a_round_and_rows_of_a_runtime_stay_together(sizes, rounds):
    groups = [[f"{g}/{i}" for i in range(size)] for g, size in enumerate(sizes)]
    visits = plan_visits(groups, rounds)
    assert [visit.index for visit in visits] == list(range(sum(sizes) * rounds))
    for number in range(rounds):
        of_round = [visit for visit in visits if visit.round == number]
        assert [visit.position for visit in of_round] == list(range(sum(sizes)))
        assert sorted(visit.row for visit in of_round) == sorted(row for group in groups for row in group)
        runtimes = [visit.row.split("/")[0] for visit in of_round]
        changes = sum(a != b for a, b in pairwise(runtimes))
        assert changes == len(sizes) - 1


def test_presets_hold_what_their_documentation_says():
    assert preset_names() == ("smoke", "demo", "quick", "normal", "paper")
    smoke, demo, quick, normal, paper = map(load_preset, preset_names())
    assert (smoke.rounds, smoke.warmup_min_runs, smoke.aa_row) == (1, 1, False)
    assert (smoke.timed_min_runs, smoke.timed_max_runs) == (2, 2)
    assert (demo.rounds, demo.warmup_min_runs, demo.warmup_min_seconds) == (3, 2, 0.1)
    assert (demo.timed_min_runs, demo.timed_min_seconds, demo.aa_row) == (10, 0.4, True)
    assert quick.rounds == 5
    assert (normal.rounds, normal.warmup_min_runs, normal.warmup_min_seconds) == (10, 5, 1.0)
    assert (normal.timed_min_runs, normal.timed_min_seconds, normal.aa_row) == (50, 3.0, True)
    assert (paper.statistic, paper.timed_min_runs, paper.timed_max_runs) == ("mean", 1000, 1000)
    for preset in (smoke, demo, quick, normal, paper):
        assert preset.timed_max_runs >= preset.timed_min_runs
        assert preset.timed_max_seconds > preset.timed_min_seconds
        assert preset.visit_timeout_seconds > preset.timed_max_seconds + preset.warmup_max_seconds


def test_the_papers_suite_is_its_six_networks_all_fused():
    suite = load_suite("table4")
    assert [(row.model, row.options) for row in suite.rows] == [
        ("finet_large", {"num_groups": 4, "se": False}),
        ("finet_large", {"num_groups": 4, "se": True}),
        ("torchvision:shufflenet_v2_x1_5", {}),
        ("torchvision:mobilenet_v2", {}),
        ("torchvision:mobilenet_v3_large", {}),
        ("timm:semnasnet_100", {}),
    ]
    assert all(row.fuse for row in suite.rows)
    assert not suite.mixed_fusion
    fusion = load_suite("table4-fusion")
    assert [row.fuse for row in fusion.rows] == [False, True]
    assert fusion.mixed_fusion


@pytest.mark.parametrize("name", suite_names())
def test_the_rows_of_a_suite_have_folders_of_their_own(name):
    rows = load_suite(name).rows
    assert len({row.name for row in rows}) == len(rows)


def test_an_unknown_preset_or_suite_suggests_the_nearest_name():
    with pytest.raises(UsageError, match=r"unknown preset 'normall'.*did you mean 'normal'"):
        load_preset("normall")
    with pytest.raises(UsageError, match=r"unknown suite 'tabel4'.*did you mean 'table4'"):
        load_suite("tabel4")
    with pytest.raises(UsageError, match="use one of smoke, demo, quick"):
        load_preset("zzzzzz")
