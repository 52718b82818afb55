"""Deploy passes: exact on any network, on every core; and the certificate of each rejects its broken twin."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from finet_deploy.passes import (
    PASS_NAMES,
    PASSES,
    Applied,
    apply_passes,
    cleanup,
    gates,
    ir,
    shapes,
    shuffle,
)
from tests.passes_apply import LIMIT, eager, error, errors, rewritten, targets
from tests.passes_networks import ALL_PARTS, NEEDS, Everything, Layout, example_inputs, layouts

aten = torch.ops.aten


@given(layout=layouts())
@settings(max_examples=5, deadline=None)
def test_all_passes_together_are_exact_on_any_network(layout: Layout) -> None:
    parts, width, padding, spelling, H, W = layout
    torch.manual_seed(0)
    with eager():
        found = errors(Everything(parts, width, padding, spelling), example_inputs(H, W), tuple(PASS_NAMES))
    assert max(found.values()) <= LIMIT, found


@pytest.mark.parametrize("name", list(PASS_NAMES))
def test_each_pass_is_exact_on_any_network_that_it_changes(name: str) -> None:
    parts, before = NEEDS[name]

    @given(layout=layouts(st.just(parts)))
    @settings(max_examples=3, deadline=None)
    def holds(layout: Layout) -> None:
        _, width, padding, spelling, H, W = layout
        torch.manual_seed(0)
        with eager():
            found = errors(Everything(parts, width, padding, spelling), example_inputs(H, W), (*before, name))
        assert name in found  # it found something
        assert found[name] <= LIMIT

    holds()


@given(H=st.integers(1, 7), W=st.integers(1, 7), data=st.data())
@settings(max_examples=6, deadline=None)
def test_pixels_may_be_cut_anywhere(H: int, W: int, data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(0, H - 1)), data.draw(st.integers(0, W - 1))
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6(), nn.Conv2d(4, 5, 3, padding=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "_best_cut", lambda conv, table: (rows, columns))
        assert errors(model, example_inputs(H, W), ["split-pixels"])["split-pixels"] <= LIMIT


@pytest.fixture(scope="module")
def everything() -> tuple[nn.Module, dict[str, Tensor], Applied]:
    """One network with every pattern, 7x7 pixels, rewritten for an eager core."""
    torch.manual_seed(0)
    model, inputs = Everything(ALL_PARTS, 18).eval(), example_inputs(7, 7)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with eager():
        applied = rewritten(model, inputs)
    # The given network stays as it is.
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    return model, inputs, applied


def test_every_pass_found_something_to_do(everything: Any) -> None:
    _, _, applied = everything
    assert [entry.name for entry in applied.entries] == list(PASS_NAMES)
    assert all(entry.changes for entry in applied.entries)
    assert [check.name for check in applied.checks] == [f"pass/{name}" for name in PASS_NAMES]


def test_only_rounding_to_fp32_is_left_at_the_end(everything: Any) -> None:
    model, inputs, applied = everything
    assert all(check.passed for check in applied.checks), [check.message for check in applied.checks]
    assert max(entry.max_error for entry in applied.entries) <= LIMIT
    assert error(applied, copy.deepcopy(model), inputs) <= 1e-6


def test_what_breaks_delegates_is_gone(everything: Any) -> None:
    _, _, applied = everything
    left = targets(applied)
    gone = {aten.hardsigmoid.default, aten.split.Tensor, aten.split_with_sizes.default, aten.transpose.int}
    gone |= {aten.dropout.default, aten.adaptive_avg_pool2d.default, aten.div.Tensor}
    assert not left & gone
    linear = [node for node in applied.model.graph.nodes if node.target is aten.linear.default]
    assert len(linear) == 2  # the head's; the gate's are convolutions


def test_passes_applied_twice_change_nothing_more(everything: Any) -> None:
    _, inputs, applied = everything
    names = tuple(name for name in PASS_NAMES if name not in ("split-pixels", "hard-sigmoid"))
    again = apply_passes(applied.model.float(), inputs, names)
    assert not [entry for entry in again.entries if entry.name not in ("pad-channels",)]


# -- the broken twins: each is the pass with one thing wrong, and must not get through ------------------------------


def _computed_in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    right = cleanup.set_constant
    monkeypatch.setattr(
        cleanup, "set_constant", lambda module, name, value: right(module, name, value.float().double())
    )


def _relu_is_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    right = cleanup._idle
    wrong = lambda node: node.args[0] if ir.is_call(node, aten.relu.default) else right(node)  # noqa: E731
    monkeypatch.setattr(cleanup, "_idle", wrong)


def _mean_folded_although_padded(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ir.Conv.__init__

    def wrong(self: ir.Conv, *arguments: Any) -> None:
        right(self, *arguments)
        self.real, self.padding = self.padding, (0, 0)

    rewritten = ir.Conv.rewritten

    def restored(self: ir.Conv, weight: Tensor, bias: Tensor, *, source: fx.Node | None = None) -> fx.Node:
        self.padding = self.real
        return rewritten(self, weight, bias, source=source)

    monkeypatch.setattr(ir.Conv, "__init__", wrong)
    monkeypatch.setattr(ir.Conv, "rewritten", restored)


def _bias_is_not_scaled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(cleanup._AFFINE, aten.mul.Tensor, lambda w, b, v: (w * v, b))
    monkeypatch.setitem(cleanup._AFFINE, aten.add.Tensor, lambda w, b, v: (w, b))


def _pooled_over_one_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    right = cleanup._is_global_pool
    monkeypatch.setattr(cleanup, "_is_global_pool", right)
    call = fx.Graph.call_function

    def wrong(self: fx.Graph, target: Any, args: Any = (), kwargs: Any = None, *rest: Any) -> fx.Node:
        if target is aten.mean.dim:
            target, args = aten.amax.default, args
        return call(self, target, args, kwargs, *rest)

    monkeypatch.setattr(fx.Graph, "call_function", wrong)


def _gate_of_other_channels(monkeypatch: pytest.MonkeyPatch) -> None:
    right = gates.set_constant
    monkeypatch.setattr(gates, "set_constant", lambda module, name, value: right(module, name, value.flip(0)))


def _slope_without_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    right = ir.Conv.rewritten
    monkeypatch.setattr(
        ir.Conv,
        "rewritten",
        lambda self, weight, bias, source=None: right(self, weight, bias - 0.5, source=source),
    )


def _parts_in_the_wrong_place(monkeypatch: pytest.MonkeyPatch) -> None:
    right = cleanup.argument
    monkeypatch.setattr(
        cleanup, "argument", lambda node, position=0, default=None: 1 - right(node, position, default)
    )


def _groups_swapped(monkeypatch: pytest.MonkeyPatch) -> None:
    def unordered(self: Any, channels: Any) -> Any:
        runs = right(self, channels)
        return [list(reversed(run)) if len(run) == 1 else run for run in runs[::-1]]

    right = shuffle._Moved._runs
    read = shuffle._Moved._read
    monkeypatch.setattr(
        shuffle._Moved, "_read", lambda self, conv, tensor, at: read(self, conv, tensor, sorted(at))
    )
    monkeypatch.setattr(shuffle._Moved, "_runs", unordered)


def _padded_in_front(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(tensor: Tensor, sizes: tuple[int, ...]) -> Tensor:
        result = tensor.new_zeros((*sizes, *tensor.shape[len(sizes) :]))
        corner = (slice(size - old, size) for old, size in zip(tensor.shape, sizes)) if tensor.ndim == 4 else (
            slice(0, old) for old in tensor.shape
        )  # fmt: skip
        result[tuple(corner)] = tensor
        return result

    monkeypatch.setattr(shapes, "_padded", wrong)


def _a_pixel_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    call = fx.Graph.call_function

    def wrong(self: fx.Graph, target: Any, args: Any = (), kwargs: Any = None, *rest: Any) -> fx.Node:
        if target is aten.slice.Tensor and args[1] == 3 and args[2] > 0:
            args = (args[0], 3, args[2] - 1, args[3] - 1)
        return call(self, target, args, kwargs, *rest)

    monkeypatch.setattr(fx.Graph, "call_function", wrong)


TWINS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "fold-constants": _computed_in_fp32,
    "remove-idle": _relu_is_idle,
    "fold-standardization": _mean_folded_although_padded,
    "fold-affine": _bias_is_not_scaled,
    "pooling": _pooled_over_one_axis,
    "gates-as-convolutions": _gate_of_other_channels,
    "hard-sigmoid": _slope_without_offset,
    "split-to-slices": _parts_in_the_wrong_place,
    "channel-shuffle": _groups_swapped,
    "pad-channels": _padded_in_front,
    "split-pixels": _a_pixel_twice,
}


def test_every_pass_has_a_broken_twin() -> None:
    assert list(TWINS) and set(TWINS) == set(PASS_NAMES) == set(PASSES)


@pytest.mark.parametrize("name", list(TWINS))
def test_the_certificate_rejects_the_broken_twin(name: str) -> None:
    (parts, before), right = NEEDS[name], PASSES[name]

    def wrong(module: fx.GraphModule, core: str) -> list[str]:
        with pytest.MonkeyPatch.context() as patch:
            TWINS[name](patch)
            return right.rewrite(module, core)

    passes = {**PASSES, name: type(right)(name, wrong)}
    torch.manual_seed(0)
    model = Everything(parts, 10).eval()
    with eager():
        applied = apply_passes(model, example_inputs(5, 4), [*before, name], passes=passes)
    last = applied.checks[-1]
    assert last.name == f"pass/{name}"
    assert last.passed is False
    assert all(check.passed for check in applied.checks[:-1])
