"""Quantization's laws: equalization is exact, rounding stays within half a step, and what hurts is named."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx import GraphModule

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.images import Preprocessing
from finet_deploy.quantize import Calibration, calibration_of, load_calibration, quantize_network
from finet_deploy.quantize.equalize import equalize
from finet_deploy.quantize.graph import graph_of, layers, quantized_values
from finet_deploy.quantize.observe import observe
from finet_deploy.quantize.rounding import WEIGHT_LEVELS, round_layers, round_weight
from finet_deploy.quantize.simulate import LEVELS, layer_sqnr, round_value, sqnr_db

SIZE = 8
PREPROCESSING = Preprocessing(resize=SIZE, crop=SIZE)


class Block(nn.Module):
    """A stem with a pool, a depthwise block with identity and gate, a grouped layer, a clamp, two linear layers."""

    def __init__(self, width: int, groups: int, gated: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, padding=1)
        self.expand = nn.Conv2d(width, width, 1, bias=False)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.project = nn.Conv2d(width, width, 1)
        self.squeeze = nn.Conv2d(width, width, 1)
        self.grouped = nn.Conv2d(width, width, 3, padding=1, groups=groups)
        self.clamped = nn.Conv2d(width, width, 1)
        self.fc1, self.fc2 = nn.Linear(width, 6), nn.Linear(6, 5)
        self.gated = gated

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.stem(x)), 2)
        y = torch.relu(self.project(self.depthwise(torch.relu(self.expand(x)))))
        if self.gated:
            y = y * torch.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
        x = torch.relu(self.grouped(x + y))
        x = nn.functional.relu6(self.clamped(x)).mean((2, 3), keepdim=True).flatten(1)
        return self.fc2(torch.relu(self.fc1(x)))


def spread_out(model: nn.Module, seed: int, decades: float) -> nn.Module:
    """Rows of every layer scaled by factors over `decades` powers of ten, so that there is something to equalize."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                factors = 10 ** (decades * (torch.rand(len(module.weight), generator=generator) - 0.5))
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) / 3)
                module.weight.mul_(factors.view(-1, *(1,) * (module.weight.ndim - 1)))
                if module.bias is not None:
                    module.bias.copy_(torch.randn(module.bias.shape, generator=generator) * factors)
    return model.eval()


def images(count: int = 8, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed)).to(dtype)


def graph(model: nn.Module, x: Tensor) -> GraphModule:
    return graph_of(torch.export.export(model, (x[:1],)))


def calibration() -> Calibration:
    return calibration_of(images(16), "noise")


@settings(max_examples=12, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from([(4, 1), (6, 2), (6, 6)]),
    st.booleans(),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.floats(0, 3),
)
def test_equalization_is_exact_in_fp64(seed, shape, gated, strength, decades):
    model = spread_out(Block(*shape, gated), seed, decades).double()
    x = images(dtype=torch.float64)
    traced = graph(model, x)
    changed = equalize(traced, observe(traced, x), strength)
    assert changed.scaled >= 5
    assert changed.shifted >= 1
    fresh = images(seed=1, dtype=torch.float64)
    with torch.no_grad():
        for image in fresh:
            truth, found = model(image[None]), traced(image[None])
            assert float((truth - found).norm() / truth.norm()) < 1e-12


def test_equalization_evens_out_the_ranges_that_a_depthwise_layer_reads():
    traced = graph(spread_out(Block(6, 2, True), 0, 2), images())
    depthwise = next(layer for layer in layers(traced) if layer.path == "depthwise")
    before = observe(traced, images())[depthwise.source].magnitude
    equalize(traced, observe(traced, images()), 0.5)
    after = observe(traced, images())[depthwise.source].magnitude
    alive = before > 0
    assert float(before[alive].max() / before[alive].min()) > 10
    assert float(after[alive].max() / after[alive].min()) == pytest.approx(1, rel=1e-4)


def test_what_is_clamped_or_gates_keeps_its_channels():
    model = spread_out(Block(6, 2, True), 0, 2)
    traced = graph(model, images())
    equalize(traced, observe(traced, images()), 0.75)
    for layer in layers(traced):
        rows = layer.weight.flatten(1) / model.get_submodule(layer.path).weight.detach().flatten(1)
        made = rows.amax(1)  # the factor of each row, where its columns have none
        if layer.path == "squeeze":  # its output is the gate, its input a mean of scaled channels
            assert float((layer.bias - model.squeeze.bias.detach()).abs().max()) == 0
        if layer.path == "clamped":
            assert float((layer.bias - model.clamped.bias.detach()).abs().max()) == 0
        assert bool(torch.isfinite(made).all())


def test_the_network_itself_is_left_as_it_is():
    model = spread_out(Block(6, 2, False), 0, 2)
    state = copy.deepcopy(model.state_dict())
    quantized = quantize_network(torch.export.export(model, (images()[:1],)), calibration(), min_sqnr_db=1.0)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert not torch.equal(next(iter(quantized.graph.parameters())), next(iter(model.parameters())))


@given(st.integers(0, 10_000), st.integers(1, 5), st.floats(1e-6, 1e6))
def test_a_rounded_weight_is_off_by_half_a_step_at_most_and_rounding_again_changes_nothing(seed, rows, scale):
    weight = torch.randn(rows, 3, 3, 3, generator=torch.Generator().manual_seed(seed)) * scale
    rounded = round_weight(weight)
    step = weight.flatten(1).abs().amax(1) / WEIGHT_LEVELS
    off = (rounded - weight).flatten(1).abs().amax(1)
    assert bool((off <= step * 0.5 * (1 + 1e-5)).all())
    assert torch.allclose(round_weight(rounded), rounded, rtol=1e-6, atol=0)


def test_a_row_of_zeros_stays_one():
    assert not round_weight(torch.zeros(2, 3, 1, 1)).any()


@given(st.floats(-100, 100), st.floats(1e-3, 100), st.integers(0, 10_000))
def test_a_rounded_value_is_off_by_half_a_step_inside_the_range_and_zero_is_exact(low, width, seed):
    high = low + width
    x = low + width * torch.rand(200, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    step = (max(high, 0.0) - min(low, 0.0)) / LEVELS
    # The zero point is rounded too: the ends of the range may lie up to half a step beyond the last level.
    assert float((round_value(x, low, high) - x).abs().max()) <= step * (1 + 1e-9)
    inside = x[(x > min(low, 0.0) + step) & (x < max(high, 0.0) - step)]
    if len(inside):
        assert float((round_value(inside, low, high) - inside).abs().max()) <= step / 2 * (1 + 1e-9)
    assert float(round_value(torch.zeros(1), low, high)) == 0.0


def test_bias_correction_keeps_the_mean_of_every_channel():
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1)).eval()
    x = images() + 2.0  # rounding errors show in the mean where inputs have one
    traced = graph(model, x)
    round_layers(traced, x)
    plain = copy.deepcopy(model)
    plain[0].weight.data = round_weight(model[0].weight.data)
    with torch.no_grad():
        truth, found, without = (net(x[i : i + 1]) for i in (0,) for net in (model, traced, plain))
        means = [
            torch.cat([net(image[None]) for image in x]).mean((0, 2, 3)) for net in (model, traced, plain)
        ]
    assert truth.shape == found.shape == without.shape
    assert float((means[1] - means[0]).abs().max()) < 1e-5
    assert float((means[2] - means[0]).abs().max()) > 1e-3


def test_the_layer_that_loses_most_is_named():
    model = spread_out(Block(6, 2, False), 0, 0)
    with torch.no_grad():
        model.project.weight[:, 0] *= 3000  # one column so large that the others round to nothing
        model.depthwise.weight[0] /= 3000
        model.depthwise.bias[0] /= 3000
    traced = graph(model, images())
    originals = {layer.node.name: (layer.weight.clone(), layer.bias.clone()) for layer in layers(traced)}
    round_layers(traced, list(images()))
    found = layer_sqnr(traced, originals, observe(traced, images()), list(images()))
    paths = {layer.node.name: layer.path for layer in layers(traced)}
    worst = min((name for name in found if found[name] is not None), key=lambda name: found[name])
    assert paths[worst] == "project"
    assert found[worst] < 15


class Hurt(nn.Module):
    """Half of the layer's outputs are a thousand times as large as the other half, and a clamp forbids to equalize."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 1)
        self.second = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.nn.functional.hardtanh(self.first(x), -1e6, 1e6)
        return self.head(torch.relu(self.second(y)).mean((2, 3), keepdim=True).flatten(1))


def hurt() -> nn.Module:
    torch.manual_seed(0)
    model = Hurt().eval()
    with torch.no_grad():
        model.first.weight[:4] *= 1000
        model.first.bias[:4] *= 1000
        model.second.weight[:, :4] *= 1e-5
    return model


def test_what_loses_too_much_stays_in_fp32_and_is_named():
    program = torch.export.export(hurt(), (images()[:1],))
    free = quantize_network(program, calibration(), min_sqnr_db=1.0)
    assert free.fp32 == frozenset()
    assert free.simulated_db < 15
    held = quantize_network(program, calibration(), min_sqnr_db=25.0)
    assert held.simulated_db > 25
    assert held.fp32_paths == ("first", "hardtanh", "second")
    assert {layer.path: layer.precision for layer in held.layers} == {
        **dict.fromkeys(("first", "second"), "float32"),
        "head": "int8",
    }


def test_a_value_is_rounded_unless_fp32_operators_alone_make_and_read_it():
    traced = graph(hurt(), images())
    everything = {node.name for node in quantized_values(traced)}
    first, clamp, second = ("conv2d", "hardtanh", "conv2d_1")

    def left_out(*fp32: str) -> set[str]:
        return everything - {node.name for node in quantized_values(traced, frozenset(fp32))}

    assert {"x", first, clamp} <= everything
    assert left_out(clamp) == set()
    assert left_out(second) == set()
    assert left_out(first) == {"x"}
    assert left_out(first, clamp) == {"x", first}
    assert left_out(first, clamp, second) == {"x", first, clamp}


def test_sqnr_is_infinite_only_for_equal_tensors():
    x = torch.ones(3)
    assert sqnr_db(x, x) == float("inf")
    assert sqnr_db(x, x * 1.1) == pytest.approx(20, abs=1e-4)
    assert sqnr_db(torch.zeros(3), x) == float("-inf")


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (images(1), "1 calibration image: too few"),
        (images(5), "5 calibration images: too few"),
        (torch.full((8, 3, 4, 4), 0.5), "one constant colour"),
        (images(1).repeat(8, 1, 1, 1), "all 8 calibration images are the same"),
        (images().masked_fill(images() > 2, float("nan")), "NaN or infinite"),
        (images().masked_fill(images() > 2, float("inf")), "NaN or infinite"),
    ],
)
def test_images_that_cannot_calibrate_are_refused(bad, message):
    with pytest.raises(FinetDeployError, match=message):
        calibration_of(bad, "somewhere")


@pytest.mark.parametrize("bad", [images().double(), images()[:, :1], images()[0]])
def test_images_of_a_wrong_kind_are_a_usage_error(bad):
    with pytest.raises(UsageError, match="calibration images are"):
        calibration_of(bad, "somewhere")


def test_images_of_another_size_than_the_network_are_refused():
    program = torch.export.export(hurt(), (torch.zeros(1, 3, 16, 16),))
    with pytest.raises(FinetDeployError, match="the network takes"):
        quantize_network(program, calibration(), min_sqnr_db=1.0)


def test_a_network_with_nan_weights_is_refused():
    model = hurt()
    model.head.weight.data[0, 0] = float("nan")
    with pytest.raises(FinetDeployError, match="NaN or infinite"):
        quantize_network(torch.export.export(model, (images()[:1],)), calibration(), min_sqnr_db=1.0)


def test_calibration_comes_from_a_folder_a_name_or_the_package(tmp_path):
    from PIL import Image

    for i in range(8):
        Image.new("RGB", (16, 16), (i * 30, 255 - i * 30, 128)).save(tmp_path / f"{i}.png")
    Image.new("RGB", (16, 16)).save(tmp_path / "0.png")
    assert load_calibration(None, PREPROCESSING, count=8).built_in
    assert not load_calibration("photos", PREPROCESSING, count=8).built_in
    digits = load_calibration("digits", Preprocessing(resize=32, crop=32))
    assert (len(digits.images), len(digits.held_out)) == (60, 4)
    with pytest.raises(FinetDeployError, match="constant colour"):
        load_calibration(str(tmp_path), PREPROCESSING)
    with pytest.raises(UsageError, match="no such folder of calibration images"):
        load_calibration("diggits", PREPROCESSING)
    with pytest.raises(UsageError, match="cifar10 is not in the package"):
        load_calibration("cifar10", PREPROCESSING)


def test_what_is_held_out_is_not_calibrated_on_and_the_hash_is_of_what_is():
    found = calibration_of(images(16), "noise")
    kept = {tuple(image.flatten().tolist()[:4]) for image in found.images}
    assert not kept & {tuple(image.flatten().tolist()[:4]) for image in found.held_out}
    assert len(found.images) + len(found.held_out) == 16
    assert found.sha256 != calibration_of(images(16, seed=1), "noise").sha256
