"""Single deploy passes: where they apply, what only looks as if they did, their names and cores."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.fuse import fuse
from finet_deploy.nn.finet import DeploySqueezeExcite, Grouping, SqueezeExcite
from finet_deploy.passes import (
    CORES,
    apply_passes,
    default_passes,
    ir,
    parse_passes,
)
from finet_deploy.passes.kernels import Kernel, Kernels
from tests.passes_apply import LIMIT, errors, rewritten, targets
from tests.passes_networks import Everything, example_inputs

aten = torch.ops.aten

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
