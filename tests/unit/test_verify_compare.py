"""Laws of the comparator."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from finet_deploy.errors import UsageError
from finet_deploy.verify import check_outputs, compare

finite = st.floats(-1e6, 1e6, allow_subnormal=True)
outputs = arrays.arrays(np.float64, arrays.array_shapes(max_dims=3, max_side=6), elements=finite)


def error_of(candidate: object, reference: object) -> float:
    return compare({"x": reference}, {"x": candidate}).max_error


@given(outputs)
def test_a_tensor_is_not_off_from_itself(b: np.ndarray) -> None:
    row = compare({"x": b}, {"x": b.copy()}).inputs[0]
    assert row.relative_error == 0.0
    assert row.max_abs_error == 0.0
    assert row.sqnr_db is None
    assert row.top1 in ("equal", None)


@given(outputs, st.integers(-300, 300))
def test_error_does_not_depend_on_the_scale_of_the_outputs(b: np.ndarray, exponent: int) -> None:
    assume(np.abs(b).max() > 1e-3)  # a power of two is exact as long as nothing becomes denormal
    b = np.where(np.abs(b) < 1e-3, 0.0, b)
    a = b + 0.01 * np.roll(b, 1)
    scale = 2.0**exponent
    assert error_of(a * scale, b * scale) == pytest.approx(error_of(a, b), rel=1e-12)


@given(outputs, st.data())
def test_any_single_changed_element_is_found(b: np.ndarray, data: st.DataObject) -> None:
    norm = float(np.linalg.norm(b))
    assume(norm > 1e-3)
    where = data.draw(st.integers(0, b.size - 1))
    a = b.copy()
    a.flat[where] += 3e-5 * norm
    comparison = compare({"x": b}, {"x": a})
    assert comparison.max_error == pytest.approx(3e-5, rel=1e-3)
    assert check_outputs("output", comparison, limit=1e-5).passed is False
    assert check_outputs("output", comparison, limit=1e-4).passed is True


@given(outputs, st.data(), st.sampled_from([math.nan, math.inf, -math.inf]), st.booleans())
def test_nan_and_infinity_never_pass(b: np.ndarray, data: st.DataObject, bad: float, in_both: bool) -> None:
    where = data.draw(st.integers(0, b.size - 1))
    a = b.copy()
    a.flat[where] = bad
    reference = a if in_both else b
    comparison = compare({"x": reference, "y": b}, {"x": a, "y": b})
    assert not comparison.comparable
    assert comparison.max_error == math.inf
    assert comparison.worst_input == "x"
    assert check_outputs("output", comparison, limit=1e300).passed is False


@given(st.sets(st.sampled_from("abcde"), min_size=1), st.sets(st.sampled_from("abcde"), min_size=1))
def test_only_equal_sets_of_names_pass_in_either_direction(ours: set[str], theirs: set[str]) -> None:
    value = np.ones((1, 3))
    a, b = dict.fromkeys(ours, value), dict.fromkeys(theirs, value)
    passed = check_outputs("output", compare(a, b), limit=1e-5).passed
    assert passed is (ours == theirs)
    assert check_outputs("output", compare(b, a), limit=1e-5).passed is passed
    assert {problem.name for problem in compare(a, b).problems} == ours ^ theirs


def test_nothing_to_compare_does_not_pass() -> None:
    check = check_outputs("output", compare({}, {}), limit=1.0)
    assert check.passed is False
    assert check.message == "no outputs to compare"


@pytest.mark.parametrize("shape", [(3,), (1, 4), (3, 1), (1, 3, 1)])
def test_another_shape_is_a_problem_even_where_it_would_broadcast(shape: tuple[int, ...]) -> None:
    comparison = compare({"x": np.ones((1, 3))}, {"x": np.ones(shape)})
    assert "shape" in comparison.problems[0].found
    assert check_outputs("output", comparison, limit=1.0).passed is False


def test_an_empty_output_is_a_problem() -> None:
    assert compare({"x": np.ones((1, 0))}, {"x": np.ones((1, 0))}).problems[0].found == "empty output"


def test_a_zero_reference_is_measured_absolutely_and_says_so() -> None:
    comparison = compare({"x": np.zeros((1, 4))}, {"x": np.array([[0.0, 3e-3, 4e-3, 0.0]])})
    row = comparison.inputs[0]
    assert (row.relative_error, row.absolute, row.sqnr_db) == (pytest.approx(5e-3), True, None)
    check = check_outputs("output", comparison, limit=1e-5)
    assert check.passed is False
    assert "absolute error (the reference is zero) 0.005" in check.message


@pytest.mark.parametrize("scale", [1e-310, 1e-200, 1e200, 1e307])
def test_extreme_magnitudes_neither_overflow_nor_vanish(scale: float) -> None:
    b = np.array([[1.0, 2.0, 2.0]]) * scale
    assert error_of(b * 1.25, b) == pytest.approx(0.25, rel=1e-6)


def test_an_error_beyond_float64_is_a_problem_and_not_a_pass() -> None:
    comparison = compare({"x": np.array([[-1.7e308, 1.0]])}, {"x": np.array([[1.7e308, 1.0]])})
    assert comparison.problems[0].found == "error too large for float64"


def test_sqnr_is_the_error_in_decibels() -> None:
    row = compare({"x": np.array([3.0, 4.0])}, {"x": np.array([3.0, 4.005])}).inputs[0]
    assert row.relative_error == pytest.approx(1e-3)
    assert row.sqnr_db == pytest.approx(60.0)


def test_the_worst_input_is_named() -> None:
    b = {name: np.ones((1, 4)) for name in ("good", "bad", "fair")}
    a = {"good": b["good"], "bad": b["bad"] * 1.1, "fair": b["fair"] * 1.01}
    comparison = compare(b, a)
    assert comparison.worst_input == "bad"
    assert comparison.max_error == pytest.approx(0.1)
    assert comparison.min_sqnr_db == pytest.approx(20.0)


@given(st.integers(0, 99), st.integers(0, 99), st.floats(1e-7, 1e-4))
@example(0, 1, 1e-6)
def test_a_swap_of_two_equal_logits_is_a_tie(first: int, second: int, noise: float) -> None:
    assume(first != second)
    b = np.random.default_rng(0).uniform(-1, 0, (1, 100))
    a = b + noise * np.random.default_rng(1).choice([-1.0, 1.0], b.shape)
    b[0, [first, second]] = 1.0
    a[0, first], a[0, second] = 1.0 - noise, 1.0 + noise
    expected = "equal" if second < first else "tie"
    row = compare({"x": b}, {"x": a}).inputs[0]
    assert row.top1 == expected
    assert check_outputs("output", compare({"x": b}, {"x": a}), limit=1e-2).passed is True


def test_one_wrong_logit_that_changes_the_class_fails_although_the_norm_is_within_the_limit() -> None:
    b = np.zeros((1, 1000))
    b[0, :500] = 1.0
    b[0, 7] = 1.001
    a = b.copy()
    a[0, 900] = 1.002
    comparison = compare({"x": b}, {"x": a})
    assert comparison.max_error < 0.05
    check = check_outputs("output", comparison, limit=0.05)
    assert comparison.inputs[0].top1 == "differs"
    assert comparison.top1_agreement == 0.0
    assert check.passed is False
    assert "top-1 class differs on x" in check.message


def test_top1_looks_at_every_row() -> None:
    b = np.eye(3, 300)
    a = b.copy()
    a[2] = np.roll(a[2], 1)
    assert compare({"x": b}, {"x": a}).inputs[0].top1 == "differs"
    assert compare({"x": b[:2]}, {"x": a[:2]}).inputs[0].top1 == "equal"


def test_top1_agreement_counts_inputs_that_could_not_be_compared() -> None:
    b = np.eye(1, 300)
    assert compare({"x": b, "y": b}, {"x": b, "y": b * math.nan}).top1_agreement == 0.5
    assert compare({"x": np.ones(3)}, {"x": np.ones(3)}).top1_agreement is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int8])
def test_torch_tensors_of_every_dtype_are_compared_with_arrays(dtype: torch.dtype) -> None:
    values = torch.tensor([[1.0, 2.0, -3.0]])
    given = values.to(dtype, copy=True).requires_grad_(dtype.is_floating_point)
    assert error_of(given, values.numpy()) == 0.0
    assert error_of(given, 2 * values.numpy()) == pytest.approx(0.5)


@pytest.mark.parametrize("value", [np.array(["a"]), np.array([1j]), [object()]])
def test_outputs_that_are_not_real_numbers_are_refused(value: object) -> None:
    with pytest.raises(UsageError, match="not real numbers"):
        compare({"x": value}, {"x": np.ones(1)})


def test_a_limit_grows_only_for_the_input_it_is_grown_for() -> None:
    b = {"x": np.ones((1, 4)), "y": np.ones((1, 4))}
    comparison = compare(b, {name: value * (1 + 3e-5) for name, value in b.items()})
    assert check_outputs("output", comparison, limit=1e-5, growth={"x": 4.0}).passed is False
    both = check_outputs("output", comparison, limit=1e-5, growth={"x": 4.0, "y": 4.0})
    assert both.passed is True
    assert both.limits == pytest.approx({"max_error": 1e-5, "max_error on x": 4e-5, "max_error on y": 4e-5})
    assert check_outputs("output", comparison, limit=1e-4, growth={"x": 1e-3}).passed is True


def test_typical_errors_lift_what_is_small_by_luck_to_the_median() -> None:
    b = {name: np.ones(4) for name in "abc"}
    errors = dict(zip("abc", (1e-9, 1e-6, 1e-5)))
    typical = compare(b, {name: b[name] * (1 + errors[name]) for name in b}).typical_errors()
    assert typical == pytest.approx({"a": 1e-6, "b": 1e-6, "c": 1e-5}, rel=1e-3)


def test_the_comparator_and_the_certificate_load_without_torch() -> None:
    code = "import sys; from finet_deploy.verify import compare, junit_xml; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
