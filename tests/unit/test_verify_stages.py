"""What `verify` refuses, and what each of its stages finds."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.fuse import fuse
from finet_deploy.verify import verify
from finet_deploy.verify.departure import first_departure
from finet_deploy.verify.forward import ordinary_names, run
from tests.verify_networks import failed, make, make_inputs

INPUTS = make_inputs()


# Refused before anything is compared


def test_train_mode_is_refused_by_dotted_name() -> None:
    model = make("plain")
    model.get_submodule("body.1").train()
    with pytest.raises(UsageError, match=r"train mode \[body\.1\]; call model\.eval\(\)"):
        verify(model, inputs=INPUTS)


def test_a_deploy_model_in_train_mode_is_refused_as_such() -> None:
    model = make("plain")
    with pytest.raises(UsageError, match=r"deploy model: .* train mode"):
        verify(model, fuse(model).train(), inputs=INPUTS)


def test_missing_running_statistics_are_refused_by_dotted_name() -> None:
    model = make("plain")
    model.bn_stem = nn.BatchNorm2d(8, track_running_stats=False)  # type: ignore[assignment]
    with pytest.raises(UsageError, match=r"no running statistics \[bn_stem\]"):
        verify(model.eval(), inputs=INPUTS)


@pytest.mark.parametrize("name", ["body.3.weight", "bn_stem.running_var"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused_by_name(name: str, value: float) -> None:
    model = make("plain")
    model.state_dict()[name].view(-1)[0] = value
    with pytest.raises(FinetDeployError, match=rf"not finite .*\[{name}\]"):
        verify(model, inputs=INPUTS)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "no inputs"),
        ({"x": torch.full((1, 3, 8, 8), math.nan)}, "'x' has NaN"),
        ({"x": torch.ones(3)}, "'x' is not a tensor with a batch dimension"),
        ({"x": np.ones((1, 3, 8, 8))}, "'x' is not a tensor"),
    ],
)
def test_unusable_inputs_are_refused(inputs: dict[str, Tensor], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        verify(make("plain"), inputs=inputs)


class Scaled(nn.Module):
    """Two factors around nothing: the output is fine where the middle overflows."""

    def __init__(self, first: float, second: float) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.first * self.second).flatten(1)


@pytest.mark.parametrize(
    ("factor", "found"), [(1e39, "beyond the range of fp32"), (1e308, "NaN or infinite")]
)
def test_a_truth_that_no_fp32_file_could_hold_is_refused_by_input(factor: float, found: str) -> None:
    with pytest.raises(FinetDeployError, match=f"{found}.*leave this input out") as caught:
        verify(Scaled(factor, 10.0).eval(), inputs={"x": INPUTS["noise_0"]})
    assert "'x'" in str(caught.value)


def test_an_unfused_net_that_overflows_in_fp32_is_told_from_a_wrong_fuse() -> None:
    certificate = verify(Scaled(1e39, 1e-39).eval(), inputs=INPUTS)
    check = certificate.check("conditioning/fp32")
    assert check.passed is False
    assert "the unfused net fails in fp32: input noise_0" in check.message
    assert certificate.check("algebra/fp64").passed is True


def test_a_network_with_several_outputs_is_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    with pytest.raises(UsageError, match="returns tuple, not one tensor"):
        verify(Two().eval(), inputs=INPUTS)


# fp32: no worse than before


def noisy(model: nn.Module, size: float) -> nn.Module:
    """The fused net in another structure, every weight off by `size`."""
    fused = fuse(model)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in fused.parameters():
            signs = torch.randint(0, 2, parameter.shape, generator=generator) * 2.0 - 1.0
            parameter.mul_(1 + size * signs)
    return nn.Sequential(fused).eval()


@pytest.mark.parametrize(("size", "passes"), [(1e-7, True), (4e-6, False)])
def test_a_deploy_net_within_the_limit_but_worse_than_the_unfused_net_is_rejected(
    size: float, passes: bool
) -> None:
    model = make("plain")
    certificate = verify(model, noisy(model, size), inputs=INPUTS)
    check = certificate.check("fp32/no_worse")
    assert check.figures["max_error"] < 1e-5  # type: ignore[operator]
    assert check.passed is passes
    assert ("is above 4 times the unfused net's" in check.message) is not passes


class Cancelling(nn.Module):
    """(x + offset) - offset: fp32 loses log2(offset) bits of x, whoever computes it."""

    def __init__(self, offset: float, extreme_offset: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1, bias=False)
        self.offset, self.extreme_offset = offset, extreme_offset

    def forward(self, x: Tensor) -> Tensor:
        offset = torch.where(x.abs().amax((1, 2, 3), keepdim=True) > 500, self.extreme_offset, self.offset)
        y = self.conv(x)
        return ((y + offset) - offset).flatten(1)


def test_limits_grow_on_extremes_with_what_rounding_does_to_the_unfused_net_and_are_shown() -> None:
    torch.manual_seed(0)
    certificate = verify(Cancelling(0.0, 1e6).eval(), inputs=INPUTS)
    conditioning, fp32 = certificate.check("conditioning/fp32"), certificate.check("fp32/no_worse")
    assert fp32.figures["max_error"] > 1e-5  # type: ignore[operator]
    assert conditioning.passed and fp32.passed
    assert "ill-conditioned, with larger limits: large" in conditioning.message
    own = max(row.relative_error for row in conditioning.inputs if row.name == "large")
    assert fp32.limits["max_error on large"] == pytest.approx(4 * own, rel=1e-6)
    assert "max_error on noise_0" not in fp32.limits
    assert certificate.check("algebra/fp64").limits == {"max_error": 1e-12}


@pytest.mark.parametrize("offset", [300.0, 1e5])
def test_a_net_that_is_itself_beyond_the_limit_on_an_ordinary_input_is_refused(offset: float) -> None:
    torch.manual_seed(0)
    certificate = verify(Cancelling(offset).eval(), inputs=INPUTS)
    check = certificate.check("conditioning/fp32")
    assert check.passed is False
    assert "the network itself is too ill-conditioned on noise_0" in check.message


def test_an_extreme_input_may_be_worse() -> None:
    torch.manual_seed(0)
    certificate = verify(Cancelling(0.0, 1e8).eval(), inputs=INPUTS)
    check = certificate.check("conditioning/fp32")
    assert check.figures["worst_input"] == "large"
    assert check.figures["max_error"] > 1e-3  # type: ignore[operator]
    assert check.passed is True


# What is left, and the contract


def test_a_fuse_that_folds_nothing_is_found_by_what_is_left() -> None:
    certificate = verify(make("plain"), inputs=INPUTS, fuse_fn=copy.deepcopy)
    check = certificate.check("normalization/left")
    assert check.passed is False
    assert check.figures["left"] == 3
    assert "first bn_stem" in check.message
    assert certificate.check("algebra/fp64").passed is True


def test_a_normalization_that_the_fuse_keeps_is_shown_with_its_reason() -> None:
    model = make("plain")
    model.body = nn.Sequential(nn.ReLU(), nn.BatchNorm2d(8), nn.ReLU(), model.body).eval()  # type: ignore[arg-type, assignment]
    check = verify(model, inputs=INPUTS).check("normalization/left")
    assert check.passed is True
    assert check.message == "1 normalizations left, each for a stated reason"
    assert check.figures["kept"][0].startswith("body.1 (BatchNorm2d): ")  # type: ignore[index]
    assert "no reason" not in check.figures["kept"][0]  # type: ignore[index]


def in_place(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        model.get_submodule("head").get_parameter("weight").mul_(1.0 + 2.0**-40)
    return fuse(model)


def new_mode(model: nn.Module) -> nn.Module:
    fused = fuse(model)
    model.get_submodule("relu").train()
    return fused


@pytest.mark.parametrize("fuse_fn", [in_place, new_mode])
def test_a_fuse_that_changes_the_original_is_found(fuse_fn: Callable[[nn.Module], nn.Module]) -> None:
    certificate = verify(make("plain"), inputs=INPUTS, fuse_fn=fuse_fn)
    assert "contract/original_unchanged" in failed(certificate)


def test_a_fuse_that_is_not_idempotent_is_found() -> None:
    def again(model: nn.Module) -> nn.Module:
        fused = fuse(model)
        with torch.no_grad():
            fused.get_submodule("head").get_parameter("bias").add_(1e-16)
        return fused

    assert failed(verify(make("plain"), inputs=INPUTS, fuse_fn=again)) == {"contract/idempotent"}


# Where networks depart


def test_a_folded_convolution_is_held_against_its_batch_norm() -> None:
    model = make("plain").double()
    assert first_departure(model, fuse(model), INPUTS["noise_0"], 1e-12) is None


@pytest.mark.parametrize("name", ["stem", "body.0", "body.3", "head"])
@pytest.mark.parametrize("kind", ["weight", "bias"])
def test_the_first_departing_module_is_named_exactly(name: str, kind: str) -> None:
    model = make("plain").double()
    wrong = fuse(model)
    with torch.no_grad():
        wrong.get_submodule(name).get_parameter(kind)[0].add_(1e-3)
    departure = first_departure(model, wrong, INPUTS["noise_0"], 1e-12)
    assert departure is not None
    assert departure.module == name
    assert 1e-6 < departure.error < 1.0


def test_a_fault_between_modules_is_said_to_be_there() -> None:
    class Forgets(type(make("plain"))):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * 1.001

    def forgets(model: nn.Module) -> nn.Module:
        fused = fuse(model)
        fused.__class__ = Forgets
        return fused

    check = verify(make("plain"), inputs=INPUTS, fuse_fn=forgets).check("algebra/fp64")
    assert check.passed is False
    assert check.figures["first_departing_module"] is None
    assert "between modules" in check.message


# Running


def test_batching_gives_each_input_its_own_rows() -> None:
    model = make("plain")
    mixed = {"one": INPUTS["noise_0"], "two": torch.cat([INPUTS["noise_1"], INPUTS["smooth"]])}
    mixed["small"] = INPUTS["noise_2"][..., :8, :8]
    outputs = run(model, mixed, torch.float32)
    assert list(outputs) == list(mixed)
    for name, x in mixed.items():
        torch.testing.assert_close(outputs[name], model(x).detach())


def test_a_network_without_a_batch_dimension_in_its_output_is_run_input_by_input() -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum((0, 2, 3))

    outputs = run(Sum(), {name: INPUTS[name] for name in ("noise_0", "noise_1")}, torch.float32)
    torch.testing.assert_close(outputs["noise_1"], INPUTS["noise_1"].sum((0, 2, 3)))


@pytest.mark.parametrize("unit", [1.0, 60.0])
def test_what_is_ordinary_does_not_depend_on_the_unit_of_the_colours(unit: float) -> None:
    names = ["noise_0", "noise_1", "noise_2", "smooth"]
    inputs = {name: unit * x for name, x in INPUTS.items()} | {"contrast": 10 * unit * INPUTS["noise_1"]}
    assert ordinary_names(inputs) == names
    assert ordinary_names({"zeros": inputs["zeros"], "denormal": inputs["denormal"]}) == []


def test_the_certificate_says_what_was_compared() -> None:
    certificate = verify(make("plain"), inputs=INPUTS, subject="my net")
    assert certificate.subject == "my net"
    assert [(row.name, row.shape, row.dtype) for row in certificate.inputs] == [
        (name, (1, 3, 12, 12), "float32") for name in INPUTS
    ]
    assert len({row.sha256 for row in certificate.inputs}) == len(INPUTS)
    assert certificate.versions["torch"] == torch.__version__


def test_verifying_twice_gives_the_same_certificate() -> None:
    model = make("fbn")
    assert verify(model, inputs=INPUTS).to_json_object() == verify(model, inputs=INPUTS).to_json_object()
