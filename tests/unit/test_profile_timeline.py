"""Operators are placed by the clock's readings, to the nanosecond; what does not fit is never placed by guess."""

from __future__ import annotations

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finet_deploy.errors import FinetDeployError
from finet_deploy.profile.timeline import read_timeline
from tests.profile_traces import Writer, encode, executorch_call, onnxruntime_call

LENGTHS = st.lists(st.integers(min_value=1, max_value=3_000_000), min_size=1, max_size=12)
STARTS = st.integers(min_value=10**9, max_value=10**13)
EXAMPLES = settings(max_examples=60, deadline=None)
NAMES = [f"Convolution (NHWC, F32) GEMM #{i}" for i in range(1, 13)]


@EXAMPLES
@given(st.lists(LENGTHS, min_size=1, max_size=4), STARTS)
def test_every_operator_of_xnnpack_is_placed_to_the_nanosecond(calls, start):
    """It tells whole microseconds; across a whole second it tells nonsense, which is not looked at."""
    calls = [[*lengths, *calls[0]][: len(calls[0])] for lengths in calls]
    writer = Writer(start)
    expected = [executorch_call(writer, NAMES, lengths) for lengths in calls]
    timeline = read_timeline(encode(writer.data()), "executorch", "here")
    assert timeline.left_out == 0
    assert [list(call.bounds[2:]) for call in timeline.calls] == expected
    assert {item.type for item in timeline.operators[2:]} == {"Convolution (NHWC, F32) GEMM"}
    assert [item.place for item in timeline.operators[:3]] == ["runtime", "runtime", "delegate"]


@EXAMPLES
@given(st.lists(LENGTHS, min_size=1, max_size=4), STARTS)
def test_a_node_of_onnxruntime_is_its_own_work_and_not_its_profilers(calls, start):
    calls = [[*lengths, *calls[0]][: len(calls[0])] for lengths in calls]
    origin = start - 12_345
    writer = Writer(start)
    expected = [onnxruntime_call(writer, NAMES, lengths, origin) for lengths in calls]
    data = encode(writer.data(unit_ns=1000, origin_ns=origin))
    timeline = read_timeline(data, "onnxruntime", "here")
    assert [list(call.bounds) for call in timeline.calls] == expected


@pytest.mark.parametrize("tensors", [1, 2, 3, 4, 5, 9, 20])
def test_tensors_put_together_are_one_operator_though_the_clock_is_read_after_each(tensors):
    writer = Writer(5 * 10**9)
    names = [
        "Slice (ND, X32) #1",
        "Copy (NC, X32) #1",
        "Slice (ND, X32) #2",
        "Copy (NC, X32) #2",
        "Mean (ND) #1",
    ]
    lengths = [3_300, 21_471, 1_532, 45_923, 2_334]
    expected = [executorch_call(writer, names, lengths, tensors) for _ in range(3)]
    timeline = read_timeline(encode(writer.data()), "executorch", "here")
    assert [list(call.bounds[2:]) for call in timeline.calls] == expected
    assert [item.type for item in timeline.operators[2:]] == [name[:-3] for name in names]


def two_calls() -> Writer:
    writer = Writer(5 * 10**9)
    for _ in range(3):
        executorch_call(writer, NAMES[:3], [5_000, 70_000, 9_000])
    return writer


def test_a_call_whose_lengths_are_others_than_the_clocks_is_left_out():
    data = two_calls().data()
    data["spans"][0][2] += 2_000
    timeline = read_timeline(encode(data), "executorch", "here")
    assert (timeline.left_out, len(timeline.calls)) == (1, 2)


def test_a_reading_that_is_missing_is_seen():
    data = two_calls().data()
    del data["readings"][5]
    assert read_timeline(encode(data), "executorch", "here").left_out == 1


def test_when_half_of_the_calls_do_not_fit_nothing_is_told():
    data = two_calls().data()
    for span in (0, 5):
        data["spans"][span][2] += 2_000
    with pytest.raises(FinetDeployError, match="2 of 3 calls do not fit"):
        read_timeline(encode(data), "executorch", "here")


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data.update(schema_version=2),
        lambda data: data.update(calls_ns=[]),
        lambda data: data.update(spans=[[99, 0, 1]]),
        lambda data: data.update(readings=[["x", 1]]),
        lambda data: data.pop("kinds"),
        lambda data: data.update(spans=[]),
    ],
)
def test_a_damaged_profile_is_one_readable_error(damage):
    data = copy.deepcopy(two_calls().data())
    damage(data)
    with pytest.raises(FinetDeployError, match="here"):
        read_timeline(encode(data), "executorch", "here")


@EXAMPLES
@given(st.binary(max_size=200))
def test_bytes_that_are_no_profile_never_end_in_a_traceback(data):
    with pytest.raises(FinetDeployError):
        read_timeline(data, "onnxruntime", "here")
