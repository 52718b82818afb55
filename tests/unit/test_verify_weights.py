"""Weights of a deploy model: the float64 fold, rounded once."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from finet_deploy.verify import Limits
from finet_deploy.verify.weights import check_rounded_once


class Weights(nn.Module):
    def __init__(self, values: Tensor) -> None:
        super().__init__()
        self.layer = nn.Module()
        self.layer.weight = nn.Parameter(values)


def weights_check(w: Tensor, f: Tensor) -> bool | None:
    return check_rounded_once(Weights(w), Weights(f), ["layer"], Limits()).passed


magnitudes = st.lists(st.floats(-44, 38).map(lambda exponent: 10.0**exponent), min_size=1, max_size=8)


@given(magnitudes, st.sampled_from([torch.float32, torch.float16, torch.bfloat16]), st.booleans())
def test_one_rounding_passes_in_every_dtype_and_at_every_magnitude(
    values: list[float], dtype: torch.dtype, negative: bool
) -> None:
    f = torch.tensor(values, dtype=torch.float64) * (-1.0 if negative else 1.0)
    f = f.clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max)
    assert weights_check(f.to(dtype), f) is True


@given(
    st.floats(-30, 30),
    st.integers(0, 4),
    st.sampled_from([-3, 3]),
    st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_three_units_in_the_last_place_are_found_in_one_element(
    exponent: float, where: int, ulps: int, dtype: torch.dtype
) -> None:
    f = 10.0**exponent * torch.tensor([1.0, -1.3, 1.7, -1.9, 0.9], dtype=torch.float64)
    w = f.to(dtype)
    _, binary = torch.frexp(w.double().abs())
    ulp = torch.ldexp(torch.full_like(f, torch.finfo(dtype).eps), binary - 1)
    off = w.double()
    off[where] += ulps * ulp[where]
    assert weights_check(w, f) is True
    assert weights_check(off.to(dtype), f) is False


def test_denormals_may_be_flushed_and_small_elements_may_not() -> None:
    f = torch.tensor([1e-39, -1e-40], dtype=torch.float64)
    assert weights_check(torch.zeros(2), f) is True
    assert weights_check(torch.zeros(2), f * 100) is False
    assert weights_check(torch.zeros(2), torch.tensor([1.0, 1e-9], dtype=torch.float64)) is False


def test_the_order_of_a_cancelling_sum_is_free() -> None:
    f = torch.tensor([1.0, 1e-9], dtype=torch.float64)
    assert weights_check((f + torch.tensor([0.0, 3e-16])).float(), f) is True
    assert weights_check((f + torch.tensor([0.0, 3e-12])).float(), f) is False


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_not_the_fold(value: float) -> None:
    f = torch.ones(3, dtype=torch.float64)
    assert weights_check(torch.tensor([1.0, value, 1.0]), f) is False


def test_of_several_wrong_tensors_the_first_as_executed_is_named() -> None:
    f, w = (nn.ModuleDict({"later": nn.Linear(2, 2), "sooner_of_both": nn.Linear(2, 2)}) for _ in range(2))
    order = ["sooner_of_both", "later"]
    check = check_rounded_once(w, f.double(), order, Limits())
    assert check.figures["first_departing_module"] == "sooner_of_both"
    assert check_rounded_once(w, f, order[::-1], Limits()).figures["first_departing_module"] == "later"
