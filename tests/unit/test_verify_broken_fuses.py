"""Wrong fuses are rejected, and the module where they go wrong is named; a check that cannot fail is found out."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from finet_deploy.fuse import fuse
from finet_deploy.verify import Limits, verify
from finet_deploy.verify.sensitivity import BREAKS
from tests.verify_networks import BROKEN_FUSES, NETS, failed, first_broken_module, make, make_inputs


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("given", [True, False], ids=["deploy given", "deploy made"])
def test_the_right_fuse_passes_every_check(kind: str, dtype: torch.dtype, given: bool) -> None:
    model = make(kind).to(dtype)
    certificate = verify(model, fuse(model) if given else None, inputs=make_inputs())
    assert certificate.passed, certificate
    assert [check.name for check in certificate.checks] == list(certificate.expected)
    assert certificate.check("algebra/fp64").figures["max_error"] < 1e-14
    assert all(certificate.check(f"sensitivity/{name}").passed for name in BREAKS)


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("broken", BROKEN_FUSES)
def test_a_broken_fuse_is_rejected_by_its_algebra_and_the_module_named(kind: str, broken: str) -> None:
    model = make(kind)
    certificate = verify(model, inputs=make_inputs(), fuse_fn=BROKEN_FUSES[broken])
    assert not certificate.passed
    check = certificate.check("algebra/fp64")
    assert check.passed is False
    assert check.figures["first_departing_module"] == first_broken_module(kind, broken)
    assert f"first departing module: {first_broken_module(kind, broken)}," in check.message


@pytest.mark.parametrize("kind", NETS)
@pytest.mark.parametrize("broken", BROKEN_FUSES)
def test_a_broken_deploy_model_in_fp32_is_rejected_and_the_module_named(kind: str, broken: str) -> None:
    model = make(kind)
    certificate = verify(model, BROKEN_FUSES[broken](model), inputs=make_inputs())
    assert not certificate.passed
    assert certificate.check("algebra/fp64").passed is True  # the fuse itself is right
    check = certificate.check("deploy/weights")
    assert check.passed is False
    assert check.figures["first_departing_module"] == first_broken_module(kind, broken)


@pytest.mark.parametrize("broken", ["zeroed_kernel", "dropped_bias", "swapped_groups", "flipped_mean"])
def test_a_broken_deploy_model_of_another_structure_is_rejected_by_its_outputs(broken: str) -> None:
    model = make("plain")
    wrapped = nn.Sequential(BROKEN_FUSES[broken](model)).eval()
    certificate = verify(model, wrapped, inputs=make_inputs())
    assert certificate.check("deploy/weights").passed is None
    assert "built otherwise than the fold" in str(certificate.check("deploy/weights").reason)
    assert {"deploy/outputs_fp64", "fp32/no_worse"} <= failed(certificate)


def test_a_right_deploy_model_of_another_structure_passes_by_its_outputs() -> None:
    model = make("plain")
    certificate = verify(model, nn.Sequential(fuse(model)).eval(), inputs=make_inputs())
    assert certificate.passed
    assert certificate.check("deploy/outputs_fp64").passed is True


def test_the_same_weights_in_another_function_are_rejected() -> None:
    model = make("plain")
    deploy = fuse(model)
    deploy.relu = nn.Hardtanh(0.0, 0.5).eval()
    certificate = verify(model, deploy, inputs=make_inputs())
    assert certificate.check("deploy/weights").passed is True
    assert failed(certificate) == {"fp32/no_worse"}
    assert certificate.check("fp32/no_worse").figures["first_departing_module"] == "relu"


def constant_network(layers: int = 12) -> nn.Module:
    """The published recipe that cannot fail: gamma, beta, mean and variance all from U(0, 0.1)."""
    torch.manual_seed(0)
    body: list[nn.Module] = []
    for index in range(layers):
        body += [
            nn.Conv2d(3 if index == 0 else 16, 16, 3, padding=1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
        ]
    model = nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean, module.running_var):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.0, 0.1)
    return model


def test_a_network_that_statistics_made_constant_is_found_out() -> None:
    certificate = verify(constant_network(), inputs=make_inputs())
    assert certificate.check("fp32/no_worse").passed is True  # the comparison alone sees nothing
    check = certificate.check("sensitivity/inputs")
    assert check.passed is False
    assert "hardly depends on its input" in check.message
    assert not certificate.passed


def test_a_break_that_nothing_rejects_fails_the_certificate() -> None:
    class IgnoresItsInput(nn.Module):
        """Its layers run, and do not count."""

        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2 = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3)
            self.head = nn.Linear(4, 10)

        def forward(self, x: Tensor) -> Tensor:
            hidden = 0.0 * self.conv2(self.conv1(x)).mean((2, 3))
            return self.head(hidden) + x.mean((2, 3)).repeat(1, 4)[:, :10]

    certificate = verify(IgnoresItsInput().eval(), inputs=make_inputs())
    assert certificate.check("sensitivity/inputs").passed is True
    names = {"sensitivity/zeroed_kernel", "sensitivity/dropped_bias", "sensitivity/swapped_groups"}
    assert failed(certificate) == names
    check = certificate.check("sensitivity/zeroed_kernel")
    assert check.figures["tried"] == ["conv1", "conv2"]
    assert "NOT rejected" in check.message


def test_a_dead_first_layer_does_not_condemn_the_network() -> None:
    class DeadBranch(nn.Module):
        """A residual branch whose last gamma is zero, as some recipes start."""

        def __init__(self) -> None:
            super().__init__()
            self.branch = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
            nn.init.zeros_(self.branch[1].weight)
            self.conv = nn.Conv2d(3, 4, 3)
            self.head = nn.Linear(4, 10)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.conv(x + self.branch(x)).mean((2, 3)))

    torch.manual_seed(0)
    certificate = verify(DeadBranch().eval(), inputs=make_inputs())
    assert certificate.check("sensitivity/swapped_groups").figures["layer"] == "conv"
    assert certificate.check("sensitivity/zeroed_kernel").passed is True


def test_groups_are_swapped_where_fbn_has_groups() -> None:
    swapped = verify(make("fbn"), inputs=make_inputs()).check("sensitivity/swapped_groups")
    assert swapped.figures["layer"] == "stem"
    only_second = NETS["fbn"]()
    only_second.stem = nn.Conv2d(3, 8, 3, stride=2, padding=1)  # type: ignore[assignment]
    swapped = verify(only_second.eval(), inputs=make_inputs()).check("sensitivity/swapped_groups")
    assert swapped.figures["layer"] == "block"


def test_faults_that_a_network_cannot_have_are_not_run_with_the_reason() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, groups=1, bias=False), nn.Flatten(), nn.Linear(400, 10)).eval()
    certificate = verify(model, inputs=make_inputs())
    assert certificate.passed
    for name in ("dropped_bias", "ignored_eps", "flipped_mean"):
        check = certificate.check(f"sensitivity/{name}")
        assert (check.passed, check.optional, bool(check.reason)) == (None, True, True)


def test_the_broken_copies_leave_model_and_deploy_model_as_they_were() -> None:
    model = make("fbn")
    deploy = fuse(model)
    states = [{k: v.clone() for k, v in net.state_dict().items()} for net in (model, deploy)]
    verify(model, deploy, inputs=make_inputs())
    for net, before in zip((model, deploy), states):
        assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize("count", [0, 1])
def test_extreme_inputs_alone_prove_nothing(count: int) -> None:
    inputs = make_inputs(count=2)
    chosen = dict(list(inputs.items())[:count]) | {
        name: inputs[name] for name in ("zeros", "large", "denormal")
    }
    certificate = verify(make("plain"), inputs=chosen)
    assert failed(certificate) == {"sensitivity/inputs"}
    assert "two different inputs" in certificate.check("sensitivity/inputs").message


def test_the_same_image_twice_is_one_input() -> None:
    x = make_inputs()["noise_0"]
    certificate = verify(make("plain"), inputs={"a": x, "b": x.clone()})
    assert certificate.check("sensitivity/inputs").figures["ordinary_inputs"] == ["a"]
    assert not certificate.passed


def test_the_distance_that_is_asked_for_is_a_limit() -> None:
    limits = Limits(sensitivity_factor=1e6)
    assert failed(verify(make("plain"), inputs=make_inputs(), limits=limits)) == {"sensitivity/inputs"}
