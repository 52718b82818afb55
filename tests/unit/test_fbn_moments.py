"""The moment form of FBN is the grouped form: outputs, gradients, running statistics; at a fraction of its memory."""

from __future__ import annotations

import copy
import itertools
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from finet_deploy.nn.fbn import FBNConv2d, FBNLinear, set_impl
from finet_deploy.nn.moments_layout import Planes

Layer = FBNConv2d | FBNLinear


def randomized(layer: Layer, dtype: torch.dtype = torch.float64) -> Layer:
    """Gamma of both signs and away from 0, beta, running statistics; deterministic by torch's seed."""
    if layer.bn.affine:
        nn.init.uniform_(layer.bn.weight, 0.5, 1.5)
        layer.bn.weight.data[::3] *= -1
        nn.init.normal_(layer.bn.bias)
    return layer.to(dtype)


def step(layer: Layer, x: Tensor, dy: Tensor | None = None) -> dict[str, Tensor]:
    """Output, gradients of the input and of every parameter, and buffers after one training step."""
    x = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    y = layer(x)
    if dy is None:  # neither its sum nor any correlation is near 0, where nothing is relative
        dy = torch.linspace(0, 97, y.numel(), dtype=torch.float64).sin().view(y.shape) + 0.3
    y.backward(dy.to(y.dtype))
    assert x.grad is not None
    found = {"y": y.detach(), "x": x.grad}
    found |= {name: p.grad for name, p in layer.named_parameters() if p.grad is not None}
    return found | dict(layer.named_buffers())


def both_forms(layer: Layer, x: Tensor, dy: Tensor | None = None) -> tuple[dict, dict]:
    moments, grouped = copy.deepcopy(layer), copy.deepcopy(layer)
    assert set_impl(moments, "moments") + set_impl(grouped, "grouped") == 1
    return step(moments, x, dy), step(grouped, x, dy)


def assert_same(
    found: dict[str, Tensor],
    expected: dict[str, Tensor],
    tolerance: float,
    scales: dict[str, float] | None = None,
) -> None:
    """Norm-relative, tensor by tensor. A convolution's bias has gradient 0 (the batch mean cancels it): absolute."""
    assert found.keys() == expected.keys()
    for name, truth in expected.items():
        scale = 1.0 if name.endswith("conv.bias") or name == "bias" else float(truth.double().norm())
        scale = max(scale, (scales or {}).get(name, 0.0))
        error = float((found[name].double() - truth.double()).norm())
        assert error <= tolerance * scale, f"{name}: {error:g} against {scale:g}"


def scales_of(layer: Layer, x: Tensor) -> dict[str, float]:
    """A hundredth of the norms of the gradients to weight and bias that do not go through the statistics.

    With one input a group the whole gradient to the weight is a difference of 1e-5 (eps) of that, and the gradient to
    the bias one of nothing: in the grouped form the terms of the difference are what is rounded.
    """
    frozen = copy.deepcopy(layer)
    frozen.bn.momentum = 1.0
    frozen.train()(x)
    frozen.bn.eval()
    found = step(frozen, x)
    return {name: 1e-2 * float(found[name].norm()) for name in ("conv.weight", "conv.bias") if name in found}


@st.composite
def layers(draw: st.DrawFn) -> tuple[FBNConv2d, Tensor]:
    G = draw(st.sampled_from([1, 2, 3, 4, 6, 12]))
    C = G * draw(st.integers(1, 12 // G))
    k = draw(st.sampled_from([1, 3]))
    padding = draw(st.sampled_from([0, 1, "valid", *(["same"] if k == 3 else [])]))
    stride = 1 if padding == "same" else draw(st.sampled_from([1, 2, (1, 3)]))
    torch.manual_seed(draw(st.integers(0, 2**20)))
    layer = FBNConv2d(
        C,
        draw(st.sampled_from([1, 2, 5, 16, 70])),
        k,
        stride,
        padding,
        draw(st.sampled_from([1, 2])),
        num_groups=G,
        affine=draw(st.booleans()),
        bias=draw(st.booleans()),
        momentum=draw(st.sampled_from([0.1, 1.0, None])),
        padding_mode=draw(st.sampled_from(["zeros", "zeros", "reflect", "circular"])),
    )
    N = draw(st.integers(1, 5))
    height, width = draw(st.integers(9, 13)), draw(st.integers(9, 13))
    x = torch.randn(N, C, height, width, dtype=torch.float64) + draw(st.sampled_from([0.0, 0.5, 3.0]))
    if draw(st.booleans()):
        x = x.to(memory_format=torch.channels_last)
    return randomized(layer), x


@settings(max_examples=150, deadline=None)
@given(layers())
def test_moment_form_equals_the_grouped_form(case):
    layer, x = case
    found, expected = both_forms(layer, x)
    assert_same(found, expected, 1e-10, scales_of(layer, x))
    for name in ("y", "bn.running_mean", "bn.running_var", "bn.bias"):
        if name in expected:
            assert_same({name: found[name]}, {name: expected[name]}, 1e-12)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("num_groups", [1, 3, 12])
@pytest.mark.parametrize("outputs", [2, 20])
def test_the_linear_layer_has_the_moment_form_too(num_groups, outputs, affine, bias):
    torch.manual_seed(0)
    layer = randomized(FBNLinear(12, outputs, num_groups=num_groups, affine=affine, bias=bias))
    x = torch.randn(40, 12, dtype=torch.float64)
    found, expected = both_forms(layer, x)
    assert_same(found, expected, 1e-10)
    assert found["y"].shape == (40, outputs)


@pytest.mark.parametrize(
    ("k", "outputs", "groups"), [(1, 7, 2), (1, 7, 6), (1, 2, 1), (3, 30, 3), (3, 9, 6), (3, 3, 2)]
)
@pytest.mark.parametrize("channels_last", [False, True])
def test_gradients_are_the_numeric_derivatives(k, outputs, groups, channels_last):
    """1x1 in both layouts, patches, and group by group (few outputs)."""
    torch.manual_seed(1)
    layer = randomized(FBNConv2d(6, outputs, k, 1 if k == 1 else 2, k // 2, num_groups=groups))
    if k == 1:
        layer.conv.stride = (1, 2)
    x = torch.randn(3, 6, 4, 4, dtype=torch.float64)
    if channels_last:
        x = x.to(memory_format=torch.channels_last)
    names = [name for name, _ in layer.named_parameters()]

    def call(x: Tensor, *values: Tensor) -> Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values)), (x,))

    inputs = (x.requires_grad_(), *(p.detach().clone().requires_grad_() for p in layer.parameters()))
    assert torch.autograd.gradcheck(call, inputs, fast_mode=True)


LOW = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
SHAPES = {"1x1": (1, 32, 48, 4), "1x1, G = C": (1, 32, 48, 32), "1x1, few outputs": (1, 32, 16, 1)}
SHAPES |= {"3x3 patches": (3, 16, 160, 4), "3x3 groupwise": (3, 16, 16, 2)}


@pytest.mark.parametrize("low", LOW)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("mean", "std"), [(0.5, 1.0), (100.0, 0.01)])
def test_rounding_error_is_no_larger_than_the_grouped_forms(low, shape, mean, std):
    """Against the fp64 truth, mean over seeds; a large mean against the deviation loses nothing."""
    k, C, O, G = SHAPES[shape]  # noqa: E741
    errors: dict[str, list[tuple[float, float]]] = {}
    for seed in range(3):
        torch.manual_seed(seed)
        layer = randomized(FBNConv2d(C, O, k, 1, k // 2, num_groups=G, momentum=1.0), torch.float32)
        x = torch.randn(8, C, 10, 10) * std + mean
        dy = torch.randn(8, O, 10, 10).bfloat16().float()
        truth = both_forms(copy.deepcopy(layer).double(), x.double(), dy.double())[1]
        with torch.autocast("cpu", dtype=LOW[low] or torch.bfloat16, enabled=LOW[low] is not None):
            found, grouped = both_forms(layer, x, dy)
        assert found["y"].dtype == grouped["y"].dtype
        for name in ("y", "x", "conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"):
            scale = truth[name].norm()
            pair = [float((form[name].double() - truth[name]).norm() / scale) for form in (found, grouped)]
            errors.setdefault(name, []).append((pair[0], pair[1]))
    # fp32: batch_norm's sums are in fp64 on the CPU, ours in fp32, a difference of some 1e-7.
    slack, floor = (1.0, 2e-6) if low == "fp32" else (1.15, 1e-6)
    for name, pairs in errors.items():
        ours, theirs = (sum(column) / len(pairs) for column in zip(*pairs))
        assert ours <= max(slack * theirs, floor), f"{name}: {ours:.2g}, grouped form {theirs:.2g}"
        if name.startswith("bn.running") and shape in ("1x1", "1x1, G = C", "3x3 patches"):
            assert ours <= 1e-6, f"{name}: moments are taken in fp32, {ours:.2g}"
        if shape.startswith("1x1"):
            assert ours <= {"fp32": 2e-6, "bf16": 2e-2, "fp16": 2e-3}[low], f"{name}: {ours:.2g}"


def test_half_precision_layers_and_inputs_keep_their_dtype_and_accumulate_in_fp32():
    torch.manual_seed(0)
    layer = randomized(FBNConv2d(16, 24, 1, num_groups=4, momentum=1.0), torch.bfloat16)
    x = (torch.randn(8, 16, 12, 12) + 4).bfloat16()
    found, _ = both_forms(layer, x)
    truth = both_forms(copy.deepcopy(layer).double(), x.double())[1]
    assert {name: value.dtype for name, value in found.items() if value.dtype != torch.bfloat16} == {
        "bn.num_batches_tracked": torch.int64
    }
    for name in ("y", "x", "bn.running_var"):
        assert float((found[name].double() - truth[name]).norm() / truth[name].norm()) < 6e-3


def saved_bytes(model: nn.Module, x: Tensor, after: nn.Module | None = None) -> int:
    """Bytes of distinct storages kept for the backward pass, parameters not counted."""
    kept: dict[int, tuple[int, Tensor]] = {}
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        y = model(x)
        if after is not None:
            y = after(y)
    return sum(size for size, _ in kept.values())


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("outputs", [8, 64])
def test_memory_for_the_backward_pass_is_the_input_whatever_the_groups(k, outputs):
    x = torch.randn(4, 16, 20, 20).requires_grad_()
    for G in (1, 2, 4, 8, 16):
        layer = FBNConv2d(16, outputs, k, padding=k // 2, num_groups=G)
        small = saved_bytes(layer, x) - x.nbytes
        matrices = 4 * (2 * G * outputs + 4 * 16 * k * k + layer.conv.weight.numel() * k * k)
        assert 0 < small <= matrices
        set_impl(layer, "grouped")
        assert saved_bytes(layer, x) >= x.nbytes + 4 * G * 4 * outputs * 400


@pytest.mark.parametrize(("k", "outputs", "groups"), [(3, 64, 16), (3, 64, 2), (3, 4, 2), (1, 64, 4)])
def test_no_intermediate_outgrows_a_few_output_maps(k, outputs, groups, monkeypatch):
    """The largest tensor that either pass makes is of the size of x or y, not G times that."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = [0]

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            for value in out if isinstance(out, tuple | list) else (out,):
                if isinstance(value, Tensor) and value._base is None:
                    largest[0] = max(largest[0], value.untyped_storage().nbytes())
            return out

    layer = FBNConv2d(16, outputs, k, padding=k // 2, num_groups=groups)
    x = torch.randn(4, 16, 24, 24, requires_grad=True)
    with Sizes():
        layer(x).sum().backward()
    map_bytes = max(x.nbytes * 26**2 / 24**2, 4 * 4 * outputs * 24**2)
    assert largest[0] <= map_bytes


def test_batch_of_one_trains_on_its_positions_and_one_value_a_channel_is_refused():
    layer = randomized(FBNConv2d(4, 6, 1, num_groups=2))
    assert_same(*both_forms(layer, torch.randn(1, 4, 5, 5, dtype=torch.float64)), 1e-10)
    for refused, x in (
        (layer, torch.ones(1, 4, 1, 1, dtype=torch.float64)),
        (FBNConv2d(4, 6, 3, num_groups=4), torch.ones(1, 4, 3, 3)),
        (FBNLinear(4, 6, num_groups=2), torch.ones(1, 4)),
    ):
        before = {name: value.clone() for name, value in refused.state_dict().items()}
        with pytest.raises(ValueError, match="Expected more than 1 value per channel"):
            refused(x)
        assert all(torch.equal(value, before[name]) for name, value in refused.state_dict().items())


@pytest.mark.parametrize(("k", "outputs"), [(1, 6), (3, 60), (3, 2), (1, 1)])
def test_constant_channels_have_variance_zero_and_finite_gradients(k, outputs):
    torch.manual_seed(0)
    layer = randomized(FBNConv2d(4, outputs, k, num_groups=2))
    x = torch.randn(3, 4, 6, 6, dtype=torch.float64)
    x[:, :2] = torch.tensor([7.0, -1e3], dtype=torch.float64)[:, None, None]  # the whole first group
    found, expected = both_forms(layer, x)
    for name in ("y", "x", "bn.bias", "bn.running_mean", "bn.running_var"):
        assert_same({name: found[name]}, {name: expected[name]}, 1e-10)
    assert all(torch.isfinite(value).all() for value in found.values())
    assert (found["bn.running_var"][:outputs] >= 0).all()


@pytest.mark.parametrize(("k", "outputs", "stride"), [(1, 6, 1), (1, 6, 2), (1, 1, 1), (3, 90, 1), (3, 6, 2)])
def test_channels_last_stays_channels_last(k, outputs, stride):
    layer = FBNConv2d(8, outputs, k, stride, num_groups=4)
    for memory_format in (torch.channels_last, torch.contiguous_format):
        x = torch.randn(2, 8, 6, 6).to(memory_format=memory_format).requires_grad_()
        y = layer(x)
        assert y.is_contiguous(memory_format=memory_format)
        y.sum().backward()
        assert x.grad is not None and x.grad.is_contiguous(memory_format=memory_format)


def test_expanded_and_sliced_inputs_and_gradients_are_read_as_they_are():
    torch.manual_seed(0)
    layer = randomized(FBNConv2d(6, 8, 1, num_groups=3))
    x = torch.randn(4, 12, 5, 7, dtype=torch.float64)[:, ::2].transpose(2, 3)
    dy = torch.randn(4, 8, 1, 1, dtype=torch.float64).expand(4, 8, 7, 5)
    assert_same(*both_forms(layer, x, dy), 1e-10)


@pytest.mark.parametrize(("k", "outputs"), [(1, 6), (3, 60), (3, 2)])
@pytest.mark.parametrize("frozen", [{"x"}, {"conv.weight"}, {"bn.weight", "bn.bias"}, {"conv.weight", "x"}])
def test_frozen_tensors_get_no_gradient_and_the_others_the_same(k, outputs, frozen):
    torch.manual_seed(0)
    layer = randomized(FBNConv2d(4, outputs, k, num_groups=2))
    x = torch.randn(3, 4, 6, 6, dtype=torch.float64)
    for name, parameter in layer.named_parameters():
        parameter.requires_grad_(name not in frozen)
    results = []
    for impl in ("moments", "grouped"):
        form, leaf = copy.deepcopy(layer), x.clone().requires_grad_("x" not in frozen)
        set_impl(form, impl)
        form(leaf).square().sum().backward()
        gradients = {name: p.grad for name, p in form.named_parameters()} | {"x": leaf.grad}
        assert {name for name, value in gradients.items() if value is None} == frozen
        results.append({name: value for name, value in gradients.items() if value is not None})
    assert_same(*results, 1e-10)


def test_a_layer_used_twice_in_one_graph_accumulates_both_uses():
    torch.manual_seed(0)
    layer = randomized(FBNConv2d(6, 6, 1, num_groups=2))
    twice = {}
    for impl in ("moments", "grouped"):
        form = copy.deepcopy(layer)
        set_impl(form, impl)
        x = torch.randn(3, 6, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        x.requires_grad_()
        form(F.relu(form(x))).square().sum().backward()
        twice[impl] = {"x": x.grad} | {n: p.grad for n, p in form.named_parameters()}
        twice[impl] |= dict(form.named_buffers())
        assert form.bn.num_batches_tracked == 2
    assert_same(twice["moments"], twice["grouped"], 1e-10)


@pytest.mark.parametrize(("k", "outputs"), [(1, 6), (3, 60), (3, 2)])
def test_an_in_place_activation_may_follow_and_a_changed_input_is_noticed(k, outputs):
    torch.manual_seed(0)
    layer = randomized(FBNConv2d(4, outputs, k, num_groups=2))
    x = torch.randn(3, 4, 6, 6, dtype=torch.float64, requires_grad=True)
    torch.relu_(layer(x)).square().sum().backward()
    in_place, x.grad = x.grad, None
    torch.relu(layer(x)).square().sum().backward()
    torch.testing.assert_close(in_place, x.grad, rtol=1e-12, atol=0)
    changed = x.detach().clone()
    y = layer(changed)
    changed.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_copies_pickles_and_state_dicts_are_those_of_the_grouped_form():
    layer = FBNConv2d(8, 4, 1, num_groups=2, impl="grouped")
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):  # noqa: S301 (our own bytes)
        assert twin.impl == "grouped"
    moments = FBNConv2d(8, 4, 1, num_groups=2)
    assert moments.impl == "moments"
    shapes = [{name: v.shape for name, v in form.state_dict().items()} for form in (layer, moments)]
    assert shapes[0] == shapes[1]
    moments.load_state_dict(layer.state_dict())


@pytest.mark.parametrize("part", ["layer", "bn"])
def test_eval_mode_and_frozen_statistics_run_the_grouped_form_bit_for_bit(part):
    layer = randomized(FBNConv2d(8, 4, 1, num_groups=2))
    grouped = copy.deepcopy(layer)
    set_impl(grouped, "grouped")
    for form in (layer, grouped):
        (form if part == "layer" else form.bn).eval()
    before = copy.deepcopy(layer.state_dict())
    x = torch.randn(3, 8, 5, 5, dtype=torch.float64)
    assert torch.equal(layer(x), grouped(x))
    assert all(torch.equal(value, before[name]) for name, value in layer.state_dict().items())


def test_without_running_statistics_the_batch_is_used_and_nothing_is_kept():
    torch.manual_seed(0)
    layer = randomized(FBNConv2d(6, 8, 1, num_groups=3))
    layer.bn = nn.BatchNorm2d(24, track_running_stats=False).double()
    assert_same(*both_forms(layer, torch.randn(4, 6, 5, 5, dtype=torch.float64)), 1e-10)


def test_modules_that_look_inside_the_layer_see_the_partial_sums():
    layer = FBNConv2d(6, 8, 1, num_groups=3)
    seen = []
    layer.bn.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    layer(torch.randn(4, 6, 5, 5))
    assert seen == [(4, 24, 5, 5)]


def test_set_impl_counts_the_layers_that_it_changes_and_knows_the_forms():
    model = nn.Sequential(FBNConv2d(4, 4, 1, num_groups=2), nn.ReLU(), FBNLinear(4, 4, impl="grouped"))
    assert set_impl(model, "grouped") == 1
    assert set_impl(model, "grouped") == 0
    assert set_impl(model, "moments") == 2
    with pytest.raises(ValueError, match="did you mean 'moments'"):
        set_impl(model, "moment")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="unknown impl"):
        FBNConv2d(4, 4, 1, impl="fast")  # type: ignore[arg-type]


def test_many_groups_take_no_more_calls_than_few():
    """One input a group: vectorized, never a loop over the groups."""
    from torch.utils._python_dispatch import TorchDispatchMode

    def calls(k: int, G: int) -> int:
        count = [0]

        class Count(TorchDispatchMode):
            def __torch_dispatch__(self, func, types, args=(), kwargs=None):
                count[0] += 1
                return func(*args, **(kwargs or {}))

        layer = FBNConv2d(64, 64, k, padding=k // 2, num_groups=G)
        x = torch.randn(2, 64, 6, 6, requires_grad=True)
        with Count():
            layer(x).sum().backward()
        return count[0]

    assert calls(1, 64) <= 1.05 * calls(1, 4)
    assert calls(3, 64) <= 4 * calls(3, 4)  # ceil(64 / (64 // 9)) = 10 chunks of groups, not 64


@pytest.mark.parametrize("layout", ["small positions", "large positions"])
def test_the_two_ways_to_form_products_over_the_batch_agree(layout):
    torch.manual_seed(0)
    P = 3 if layout == "small positions" else 400
    x, dy = torch.randn(5, 16, P, dtype=torch.float64), torch.randn(5, 20, P, dtype=torch.float64)
    torch.testing.assert_close(Planes.cross(dy, x), torch.einsum("nop,ncp->oc", dy, x))
    weight, bias = torch.randn(20, 16, dtype=torch.float64), torch.randn(20, dtype=torch.float64)
    y = Planes.product(weight, x, bias, torch.Size((5, 16, P, 1)))
    torch.testing.assert_close(y[..., 0], torch.einsum("oc,ncp->nop", weight, x) + bias[:, None])
    for G in (1, 2, 16):
        x_g = x.view(5, G, 16 // G, P)
        torch.testing.assert_close(Planes.scatter(x, G), torch.einsum("ngcp,ngdp->gcd", x_g, x_g))


@pytest.mark.parametrize(("k", "outputs", "amp"), itertools.product((1, 3), (4, 80), (False, True)))
@pytest.mark.parametrize("lies", ["channels first", "channels last", "one position"])
def test_compiled_without_graph_breaks_it_is_the_same(k, outputs, amp, lies):
    """Through dynamo, AOTAutograd and the code generator's decompositions; the code generator is torch's."""
    torch.manual_seed(0)
    layer = randomized(FBNConv2d(8, outputs, k, padding=k // 2, num_groups=4), torch.float32)
    model = nn.Sequential(layer, nn.ReLU(inplace=True))
    torch.compiler.reset()  # or the cases run into the limit of recompilations
    x = torch.randn(16, 8, 1, 1) if lies == "one position" else torch.randn(3, 8, 6, 6)
    if lies == "channels last":
        x = x.contiguous(memory_format=torch.channels_last)
    results = []
    for compiled in (False, True):
        twin, leaf = copy.deepcopy(model), x.clone().requires_grad_()
        call = torch.compile(twin, backend="aot_eager_decomp_partition", fullgraph=True) if compiled else twin
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=amp):
            y = call(leaf)
        y.square().sum().backward()
        results.append({"y": y.detach(), "x": leaf.grad} | {n: p.grad for n, p in twin.named_parameters()})
        results[-1] |= dict(twin.named_buffers())
    for name, expected in results[0].items():
        error = (results[1][name] - expected).abs().max()
        assert error <= 5e-6 * expected.abs().max().clamp_min(1), (name, error)
