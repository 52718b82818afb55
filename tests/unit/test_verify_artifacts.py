"""Exported files in the certificate, each on every input."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from torch import Tensor, nn

from finet_deploy.fuse import fuse
from finet_deploy.verify import verify
from tests.verify_networks import failed, make, make_inputs

INPUTS = make_inputs()


def as_artifact(model: nn.Module) -> Callable[[Tensor], np.ndarray]:
    return lambda x: model(x).detach().numpy()


def test_artifacts_are_run_on_every_input_and_named() -> None:
    model = make("fbn")
    seen: list[tuple[int, ...]] = []

    def artifact(x: Tensor) -> Tensor:
        seen.append(tuple(x.shape))
        return model(x)

    certificate = verify(model, inputs=INPUTS, artifacts={"pte": artifact, "onnx": as_artifact(fuse(model))})
    assert certificate.passed
    assert seen == [(1, 3, 12, 12)] * len(INPUTS)
    assert {row.name for row in certificate.check("artifact/onnx").inputs} == set(INPUTS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda y: y * 1.001, "worst relative error 0.001 on input smooth"),
        (lambda y: y * math.nan, "input smooth: 10 of 10 values of the candidate are NaN"),
        (lambda y: y[0], r"input smooth: shape (10,) where the reference has (1, 10)"),
    ],
)
def test_an_artifact_that_is_wrong_on_one_input_fails_and_the_input_is_named(
    change: Callable[[Tensor], Tensor], message: str
) -> None:
    model = make("plain")
    certificate = verify(
        model,
        inputs=INPUTS,
        artifacts={
            "pte": model,
            "onnx": lambda x: change(model(x)) if x.equal(INPUTS["smooth"]) else model(x),
        },
    )
    check = certificate.check("artifact/onnx")
    assert failed(certificate) == {"artifact/onnx"}
    assert message in check.message
    assert check.figures["worst_input"] == "smooth"


def test_an_artifact_that_crashes_fails_with_what_its_runtime_said() -> None:
    def crash(x: Tensor) -> Tensor:
        raise RuntimeError("no kernel for\nconv")

    certificate = verify(make("plain"), inputs=INPUTS, artifacts={"pte": crash})
    message = certificate.check("artifact/pte").message
    assert message == "input noise_0: the runtime raised RuntimeError: no kernel for conv"
    assert failed(certificate) == {"artifact/pte"}


def test_an_artifact_cannot_change_the_inputs_of_the_next() -> None:
    model = make("plain")

    def greedy(x: Tensor) -> Tensor:
        y = model(x.clone())
        x.zero_()
        return y

    assert verify(model, inputs=INPUTS, artifacts={"pte": greedy, "onnx": model}).passed
