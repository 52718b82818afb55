"""Deploy passes: exact on any network, on every core; and the certificate of each rejects its broken twin."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, fx, nn

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.fuse import fuse
from finet_deploy.nn.finet import DeploySqueezeExcite, Grouping, SqueezeExcite
from finet_deploy.passes import (
    CORES,
    PASS_NAMES,
    PASSES,
    Applied,
    apply_passes,
    cleanup,
    default_passes,
    gates,
    ir,
    parse_passes,
    shapes,
    shuffle,
)
from finet_deploy.passes.kernels import Kernel, Kernels
from tests.passes_networks import ALL_PARTS, NEEDS, Everything, Layout, example_inputs, layouts

aten = torch.ops.aten
LIMIT = 1e-12


@contextlib.contextmanager
def eager() -> Iterator[None]:
    """A core on which every padding pays, and every cut: so that the rewrites are tried where a core's would not."""

    def cut(conv: ir.Conv, table: Kernels) -> tuple[int, int] | None:
        H, W = ir.shape(conv.node)[2:]
        return (H // 2, W // 2) if min(H, W) > 1 else None

    table = Kernels(Kernel(6, 8, 1e6, 1), Kernel(1, 8, 0, 1), Kernel(4, 2, 1e9, 1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "kernels", lambda core: table)
        patch.setattr(shapes, "_best_cut", cut)
        yield


def rewritten(
    model: nn.Module, inputs: dict[str, Tensor], names: Any = None, core: str = "cortex-a76"
) -> Applied:
    applied = apply_passes(model.eval(), inputs, tuple(PASS_NAMES) if names is None else names, core=core)
    return applied


def error(applied: Applied, model: nn.Module, inputs: dict[str, Tensor]) -> float:
    """Norm-relative, in float64, of the whole chain; weights were rounded to fp32 in between."""
    truth, found = model.double(), copy.deepcopy(applied.model).double()
    with torch.no_grad():
        return max(
            float((found(x.double()) - truth(x.double())).norm() / truth(x.double()).norm())
            for x in inputs.values()
        )


def targets(applied: Applied) -> set[Any]:
    assert isinstance(applied.model, fx.GraphModule)
    return {node.target for node in applied.model.graph.nodes if node.op == "call_function"}


def errors(model: nn.Module, inputs: dict[str, Tensor], names: Sequence[str]) -> dict[str, float]:
    """Pass -> norm-relative error in float64, after against before, without the certificate's help.

    Passes that say that they changed nothing are left out, and must not have.
    """
    xs = [x.double() for x in inputs.values()]
    graph = ir.lower(model.eval().double(), xs[0])
    found = {}
    with torch.no_grad():
        before = [graph(x) for x in xs]
        for name in names:
            changes = PASSES[name].rewrite(graph, "cortex-a76")
            ir.refresh(graph, xs[0])
            after = [graph(x) for x in xs]
            if changes:
                found[name] = max(float((b - a).norm() / a.norm()) for a, b in zip(before, after))
            else:
                assert all(torch.equal(a, b) for a, b in zip(before, after))
            before = after
    return found


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


# -- single passes ---------------------------------------------------------------------------------------------------


def test_padding_follows_the_core() -> None:
    """On an A76 the tiles of two outputs that 100 would get are so slow that zero channels pay; not on an A53."""
    model = nn.Sequential(
        nn.Conv2d(3, 100, 1), nn.ReLU(), nn.Conv2d(100, 100, 3, padding=1, groups=100), nn.Conv2d(100, 100, 1),
        nn.ReLU(), nn.Conv2d(100, 64, 1),
    )  # fmt: skip
    inputs = example_inputs(14, 14)
    widths = {}
    for core in ("cortex-a76", "cortex-a53"):
        applied = rewritten(model, inputs, ["pad-channels"], core)
        convs = list(ir.convolutions(applied.model))  # type: ignore[arg-type]
        widths[core] = [conv.out_channels for conv in convs]
    assert widths["cortex-a76"] == [104, 104, 104, 64]
    assert widths["cortex-a53"][2] == 100


def test_what_an_output_or_a_concatenation_counts_is_not_padded() -> None:
    class Counted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(3, 100, 1), nn.Conv2d(3, 100, 1)
            self.last = nn.Conv2d(200, 100, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.cat((self.one(x), self.two(x)), 1)).mean((2, 3))

    applied = rewritten(Counted(), example_inputs(8, 8), ["pad-channels"])
    assert not applied.entries


@pytest.mark.parametrize(("side", "cut"), [(7, True), (8, False), (14, False)])
def test_pixels_are_cut_only_where_a_tile_is_wasted(side: int, cut: bool) -> None:
    model = nn.Sequential(nn.Conv2d(3, 400, 3, padding=1), nn.Conv2d(400, 400, 1), nn.ReLU())
    applied = rewritten(model, example_inputs(side, side), ["split-pixels"], "cortex-a76")
    assert bool(applied.entries) is cut


def test_the_gate_of_finet_needs_no_form_of_its_own() -> None:
    """Squeeze-Excite as the paper has it: `fuse` spells it as the pass would."""

    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.gate = nn.Conv2d(3, 8, 1), SqueezeExcite(8, 8, Grouping(2))

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return y * self.gate(y)

    inputs = example_inputs(4, 4)
    fused = fuse(Gated().eval(), example_inputs=(inputs["first"],))
    assert any(isinstance(module, DeploySqueezeExcite) for module in fused.modules())
    assert "gates-as-convolutions" not in errors(fused, inputs, default_passes("pte"))


class Lookalike(nn.Module):
    """A convolution of 3 to 8 channels, then `after`, with a convolution and a linear layer of 8 and one of 4."""

    def __init__(self, after: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
        self.one, self.fc, self.narrow = nn.Conv2d(1, 8, 1), nn.Linear(8, 8), nn.Linear(4, 4)
        self.register_buffer("five", torch.ones(1, 1, 1, 1, 1))
        self.register_buffer("mean", torch.randn(8, 1, 1))
        self.register_buffer("std", torch.rand(8, 1, 1) + 0.5)
        self.register_buffer("side", torch.randn(1, 8, 4, 4))
        self.after = after

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self, self.stem(x))


def shuffled(y: Tensor, groups: int) -> Tensor:
    return y.view(1, groups, 8 // groups, 4, 4).transpose(1, 2).reshape(1, 8, 4, 4)


LOOKALIKES: dict[str, tuple[str, Callable[[Any, Tensor], Tensor]]] = {
    "a ReLU of a sum": ("remove-idle", lambda net, y: F.relu(y + net.conv(y))),
    "a summand with a fifth axis": ("fold-affine", lambda net, y: y + net.five),
    "a convolution that others read too": ("fold-affine", lambda net, y: y * 2 + y),
    "an average in another precision": ("pooling", lambda net, y: y.mean((2, 3), dtype=torch.float32)),
    "a window that is not the whole": ("pooling", lambda net, y: F.avg_pool2d(y, (4, 2))),
    "a gate over halves of the channels": (
        "gates-as-convolutions",
        lambda net, y: y * net.narrow(y.mean((2, 3), keepdim=True).view(2, 4)).view(1, 8, 1, 1),
    ),
    "a linear layer with computed weights": (
        "gates-as-convolutions",
        lambda net, y: y * F.linear(y.amax((2, 3), True).view(1, 8), net.fc.weight * y.amax()).view(1, 8, 1, 1),
    ),
    "axes swapped across the batch": (
        "channel-shuffle",
        lambda net, y: net.conv(y.view(2, 4, 1, 4, 4).transpose(1, 2).reshape(1, 8, 4, 4)),
    ),
    "an average over shuffled channels": (
        "channel-shuffle",
        lambda net, y: net.one(shuffled(y, 2).mean(1, keepdim=True)),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", list(LOOKALIKES))
def test_what_only_looks_like_a_pattern_stays(case: str) -> None:
    name, after = LOOKALIKES[case]
    assert name not in errors(Lookalike(after), example_inputs(4, 4), [name])


def test_shuffled_constants_are_read_in_their_order() -> None:
    model = Lookalike(lambda net, y: net.conv(shuffled(torch.cat((y, net.side), 1)[:, 4:12], 4)))
    assert errors(model, example_inputs(4, 4), ["channel-shuffle"])["channel-shuffle"] <= LIMIT


def test_a_multiple_of_the_mean_is_not_taken_for_the_mean() -> None:
    model = Lookalike(lambda net, y: net.conv(torch.sub(y, net.mean, alpha=2) / net.std))
    assert errors(model, example_inputs(4, 4), ["fold-standardization"])["fold-standardization"] <= LIMIT


def test_one_shuffle_that_a_convolution_does_not_read_stays() -> None:
    class Open(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 8, 1), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            N, C, H, W = y.shape
            return self.fc(y.view(N, 2, 4, H, W).transpose(1, 2).reshape(N, C, H, W).mean((2, 3)))

    applied = rewritten(Open(), example_inputs(4, 4), ["channel-shuffle"])
    assert not applied.entries


@pytest.mark.parametrize("padding", [0, 1])
def test_standardization_leaves_a_subtraction_only_beside_padding(padding: int) -> None:
    model = Everything((), 8, padding)
    applied = rewritten(model, example_inputs(5, 5), ["fold-standardization"])
    assert applied.checks[0].passed
    assert (aten.sub.Tensor in targets(applied)) is (padding == 1)
    assert aten.div.Tensor not in targets(applied)


# -- names, cores, errors --------------------------------------------------------------------------------------------


def test_names_are_put_in_the_order_in_which_passes_run() -> None:
    assert parse_passes("split-pixels,pooling", ()) == ("pooling", "split-pixels")
    assert parse_passes(["pooling", "fold-constants"], ()) == ("fold-constants", "pooling")
    assert parse_passes("none", default_passes("pte")) == ()
    assert parse_passes("default", default_passes("onnx")) == default_passes("onnx")
    assert default_passes("ptl") == ()


def test_a_default_pass_can_be_left_out_and_another_taken_in() -> None:
    assert parse_passes("default,-split-pixels", default_passes("pte")) == default_passes("pte")[:-1]
    assert parse_passes("default,pooling", ("fold-affine",)) == ("fold-affine", "pooling")
    assert parse_passes("pooling,-pooling", ()) == ()


@pytest.mark.parametrize("text", ["poling", "", "none,pooling", ",", "default,-poling"])
def test_other_names_are_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_passes(text, ())


def test_an_unknown_core_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown core 'cortex-a7'"):
        apply_passes(nn.Conv2d(3, 3, 1).eval(), example_inputs(3, 3), ["pooling"], core="cortex-a7")
    assert "cortex-a76" in CORES


def test_a_network_that_cannot_be_traced_is_refused_in_words() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if float(x.sum()) > 0 else -x

    with pytest.raises(FinetDeployError, match="cannot be traced for the deploy passes"):
        apply_passes(Branching().eval(), example_inputs(3, 3), ["pooling"])


def test_the_kernel_is_chosen_as_xnnpack_does() -> None:
    table = Kernels(Kernel(6, 8, 1, 1), Kernel(1, 8, 1, 1), Kernel(4, 2, 1, 1))
    assert table.chosen(784, 100) is table.narrow  # half a tile of 100 is wasted, tiles of two fit
    assert table.chosen(784, 104) is table.wide
    assert table.chosen(784, 103) is table.wide  # odd: tiles of two waste as much
    assert table.chosen(784, 4) is table.narrow
    assert table.chosen(784, 796) is table.wide  # four of 796 are below 1 %
    assert table.chosen(1, 104) is table.single
    assert table.wide.cost(49, 10, 16) == 9 * 2 * 11
