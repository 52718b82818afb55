"""What a profile says: rows that sum up to the whole, bounds that are bounds, tables and pictures with all of them."""

from __future__ import annotations

import csv
import io
import statistics
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finet_deploy.bench.statistics import Estimate
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.profile.emulated import attribute
from finet_deploy.profile.measured import split_up
from finet_deploy.profile.model import BETWEEN, Profile, Roofline, Row
from finet_deploy.profile.picture import render_svg
from finet_deploy.profile.render import kind_of, render_csv, render_markdown
from finet_deploy.profile.roofline import CoreBest, bound_seconds, decode_core_best
from finet_deploy.profile.timeline import Call, Operator, Timeline
from finet_deploy.profile.write import check_output, write_profiles
from finet_deploy.runner.counting import CLASSES

RATES = st.floats(min_value=1e6, max_value=1e12)
BEST = {
    "schema_version": 1,
    "vectors": "neon",
    "threads": 1,
    "macs_per_second": 8e9,
    "streams": [{"bytes": 1 << 15, "bytes_per_second": 5e10}, {"bytes": 1 << 22, "bytes_per_second": 1e10}],
}


def best(**changes: object) -> CoreBest:
    return decode_core_best(msgspec.json.encode({**BEST, **changes}), "here")


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 10**9), st.integers(1, 10**8))
def test_the_bound_is_the_slower_of_arithmetic_and_traffic(macs, moved):
    core = best()
    seconds, what = bound_seconds(core, macs, moved)
    compute, traffic = macs / 8e9, moved / core.bytes_per_second(moved)
    assert seconds == max(compute, traffic)
    assert what == ("compute" if compute >= traffic else "bandwidth")
    assert bound_seconds(core, 2 * macs, 2 * moved)[0] >= seconds


def test_a_working_set_has_the_rate_of_the_cache_that_holds_it():
    core = best()
    assert core.bytes_per_second(1000) == 5e10
    assert core.bytes_per_second((1 << 15) + 1) == core.bytes_per_second(1 << 30) == 1e10
    assert bound_seconds(core, None, None) is None


@pytest.mark.parametrize(
    "change", [{"macs_per_second": 0}, {"streams": []}, {"schema_version": 2}, {"vectors": None}]
)
def test_an_impossible_measurement_of_the_core_is_refused(change):
    with pytest.raises(FinetDeployError, match="here"):
        best(**change)


def timeline(bounds: list[list[tuple[int, int]]]) -> Timeline:
    operators = tuple(Operator(f"op{i}", "Add", "delegate", 0, {}) for i in range(len(bounds[0])))
    return Timeline(operators, tuple(Call(0, 1, tuple(call)) for call in bounds), 0)


def snapshots(*steps: int) -> tuple[tuple[int, ...], ...]:
    """At every millisecond: counters of all classes alike, `steps` apart."""
    return tuple((sum(steps[:t]),) * len(CLASSES) for t in range(len(steps) + 1))


MS = 1_000_000


def test_an_operators_instructions_are_those_between_its_snapshots_without_the_readings_own():
    ticks = snapshots(7, 1007, 507, 2507, 7, 1007, 507, 2507)
    calls = [[(t * MS, (t + 1) * MS), ((t + 1) * MS, (t + 3) * MS)] for t in (2, 6)]
    found = attribute(timeline(calls), ticks, "here")
    assert [count["fma"] for count in found] == [1000, 3000]
    for wrong in ((0, MS), (9 * MS, 10 * MS), (MS, MS + 1)):
        with pytest.raises(FinetDeployError, match="no snapshot"):
            attribute(timeline([[wrong], [wrong]]), ticks, "here")


def test_two_inferences_that_count_differently_are_no_count():
    ticks = snapshots(7, 1007, 7, 2007)
    with pytest.raises(FinetDeployError, match="not deterministic"):
        attribute(timeline([[(2 * MS, 3 * MS)], [(4 * MS, 5 * MS)]]), ticks, "here")


TIMES = st.floats(min_value=1e-7, max_value=1e-2)


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 6).flatmap(
        lambda n: st.lists(st.lists(TIMES, min_size=n, max_size=n), min_size=1, max_size=7)
    ),
    st.data(),
)
def test_parts_of_the_whole_add_up_to_what_all_operators_take_of_it(times, data):
    """Whatever the rounds: a round in which the profiled process was held up says nothing of one operator alone."""
    slower = data.draw(st.lists(st.floats(0.5, 2), min_size=len(times), max_size=len(times)))
    wholes = [sum(item) * factor for item, factor in zip(times, slower)]
    accounted, parts = split_up(times, wholes)
    assert sum(part.value for part in parts) == pytest.approx(accounted.value)
    assert accounted.value == pytest.approx(statistics.median(1 / factor for factor in slower))
    alike = [[time * factor for time in times[0]] for factor in slower]
    _, parts = split_up(alike, [sum(times[0])] * len(times))
    scale = statistics.median(slower) / sum(times[0])
    assert [part.value for part in parts] == pytest.approx([time * scale for time in times[0]])


def row(module: str | None, operator: str, cost: float, where: str = "delegate", **more: object) -> Row:
    return Row(
        module=module,
        operator=operator,
        name=f"{operator} #1",
        where=where,
        cost=cost,
        share=cost / 100,
        **more,
    )


CLASSED = dict.fromkeys(CLASSES, 0)
COUNTED = Profile(
    label="net <&>", format="pte", runtime="executorch", runtime_version="1", artifact_sha256="0" * 64,
    device="cortex-a76", emulated=True, threads=1, unit="instructions", macs=100, total=100, accounted=0.9,
    profiling=1.1, notes=("a cost, not a speed",),
    rows=(
        row("stage2.0.conv1", "Fully Connected (NC, F32) GEMM", 60, ops=("aten.convolution.default",), macs=100,
            classes={**CLASSED, "fma": 40, "load": 15, "branch": 5}),
        row("a|b", "view_copy.out", 30, "outside", reason="no rule", classes={**CLASSED, "integer": 30}),
        row(None, BETWEEN, 10, "runtime", classes={**CLASSED, "store": 10}),
    ),
)  # fmt: skip
ONE = Estimate(value=10.0, low=9.0, high=11.0, rounds=5)
TIMED = msgspec.structs.replace(
    COUNTED,
    unit="us",
    emulated=False,
    device="host",
    roofline=Roofline(gmacs=ONE, gbytes={32768: ONE}, vectors="neon"),
    rows=tuple(
        msgspec.structs.replace(
            row, classes=None, of_bound=0.5 if row.macs else None, bound="compute" if row.macs else None
        )
        for row in COUNTED.rows
    ),
)


def test_a_table_has_every_row_says_what_is_outside_and_why_and_that_it_is_emulated():
    text = render_markdown([COUNTED, TIMED])
    assert "cortex-a76 (emulated)" in text and "a cost, not a speed" in text
    assert text.count("stage2.0.conv1") == 2
    assert "a|b, view_copy.out: no rule" in text
    assert "1x1 convolution as Fully Connected" in text
    assert "50% compute" in text and "20.0 GFLOP/s" in text
    assert "stage2.0.conv1" not in render_markdown([COUNTED], operators=False)


def test_the_csv_has_one_line_an_operator_whose_classes_sum_up_to_it():
    lines = list(csv.DictReader(io.StringIO(render_csv([COUNTED]))))
    assert len(lines) == 3
    assert sum(float(line["cost"]) for line in lines) == COUNTED.total
    for line in lines:
        assert sum(int(line[name]) for name in CLASSES) == float(line["cost"])
        assert line["emulated"] == "True"


def test_a_convolution_that_runs_as_a_matrix_product_is_told_from_a_linear_layer():
    conv, other, _ = COUNTED.rows
    linear = msgspec.structs.replace(conv, ops=("aten.linear.default",))
    assert kind_of(conv) != kind_of(linear) == linear.operator
    assert kind_of(other) == "view_copy.out"


@pytest.mark.parametrize("profile", [COUNTED, TIMED])
def test_the_picture_is_well_formed_and_has_a_bar_for_each_row(profile):
    tree = ElementTree.fromstring(render_svg(profile))
    titles = [item.text for item in tree.iter("{http://www.w3.org/2000/svg}title")]
    assert len(titles) == 3
    assert any("stage2.0.conv1" in title for title in titles)


def test_files_are_written_beside_each_other_and_a_file_is_no_folder(tmp_path):
    paths = write_profiles([COUNTED], tmp_path / "out")
    assert sorted(path.suffix for path in paths) == [".csv", ".json", ".md", ".svg"]
    assert msgspec.json.decode(paths[0].read_bytes(), type=list[Profile]) == [COUNTED]
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        check_output(tmp_path / "file")
