"""The certificate as a verdict, as JSON and as JUnit XML."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.verify import (
    Certificate,
    Check,
    InputSummary,
    Limits,
    check_outputs,
    compare,
    fp32_growth,
    judge_artifact,
    junit_xml,
    summary_lines,
)
from finet_deploy.verify.certificate import CONDITIONING

GOLDEN = Path(__file__).parents[1] / "data" / "verify"


def check(name: str = "algebra/fp64", passed: bool | None = True, **fields: object) -> Check:
    return Check(name=name, stage=name.split("/")[0], passed=passed, message="a message", **fields)  # type: ignore[arg-type]


def certificate(
    *checks: Check, expected: tuple[str, ...] | None = None, subject: str = "a net"
) -> Certificate:
    names = tuple(entry.name for entry in checks) if expected is None else expected
    return Certificate(subject=subject, expected=names, checks=checks)


def full() -> Certificate:
    """One of each: passed, failed, rightly not run, wrongly not run, missing; and text that XML dislikes."""
    b = {"photo_0": np.array([[1.0, 2.0, 4.0]]), "zeros": np.zeros((1, 3))}
    good = compare(b, {"photo_0": b["photo_0"] * (1 + 2.0**-24), "zeros": b["zeros"]})
    bad = compare(b, {"photo_0": b["photo_0"] * np.nan, "zeros": b["zeros"] + 0.5})
    return Certificate(
        subject='finet <small> & "co"\x1b\ud800',
        expected=("algebra/fp64", "artifact/pte", "deploy/weights", "fp32/no_worse", "contract/idempotent"),
        checks=(
            check_outputs("algebra/fp64", good, limit=1e-6),
            judge_artifact("pte", bad),
            check("deploy/weights", None, optional=True, reason="no deploy model was given"),
            check("fp32/no_worse", None, reason="no time"),
        ),
        versions={"torch": "2.0"},
        inputs=(
            InputSummary(
                name="photo_0",
                shape=(1, 3, 8, 8),
                dtype="float32",
                sha256="0" * 64,
                minimum=-1.0,
                maximum=2.5,
            ),
        ),
    )


def test_a_certificate_passes_when_every_expected_check_passed() -> None:
    assert certificate(check("a"), check("b")).passed


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(certificate(), id="empty"),
        pytest.param(certificate(check("a"), expected=()), id="nothing expected"),
        pytest.param(certificate(check("a"), check("b", False)), id="one failed"),
        pytest.param(certificate(check("a"), expected=("a", "b")), id="one missing"),
        pytest.param(
            certificate(check("a"), check("b", None, reason="no time")), id="left out without leave"
        ),
        pytest.param(
            certificate(check("a"), check("b", None, optional=True)), id="left out without a reason"
        ),
        pytest.param(
            certificate(check("a", None, optional=True, reason="r")), id="only optional ones, not run"
        ),
    ],
)
def test_a_certificate_does_not_pass(bad: Certificate) -> None:
    assert not bad.passed


def test_an_optional_check_that_was_not_run_for_a_reason_does_no_harm() -> None:
    assert certificate(check("a"), check("b", None, optional=True, reason="no FBN")).passed


def test_json_round_trip_keeps_everything() -> None:
    written = json.loads(json.dumps(full().to_json_object()))
    assert Certificate.from_json_object(written) == full()
    assert written["passed"] is False


def test_json_is_the_golden_file() -> None:
    text = json.dumps(full().to_json_object(), indent=2) + "\n"
    assert text == (GOLDEN / "certificate.json").read_text(encoding="utf-8")


def test_junit_is_the_golden_file() -> None:
    assert junit_xml(full()) == (GOLDEN / "certificate.xml").read_text(encoding="utf-8")


def _set(path: str, value: object) -> dict[str, object]:
    data = json.loads(json.dumps(full().to_json_object()))
    *parents, last = path.split(".")
    target = data
    for key in parents:
        target = target[int(key) if key.isdigit() else key]
    if value is KeyError:
        del target[last]
    else:
        target[last] = value
    return data


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param([], "no JSON object", id="list"),
        pytest.param({}, "schema_version None", id="empty"),
        pytest.param(_set("schema_version", 2), "schema_version 2", id="newer"),
        pytest.param(_set("schema_version", True), "schema_version True", id="boolean version"),
        pytest.param(_set("passed", True), "says passed=True", id="forged verdict"),
        pytest.param(_set("passed", KeyError), "says passed=None", id="no verdict"),
        pytest.param(_set("checks.0.passed", "yes"), r"checks\[0\].passed", id="wrong type"),
        pytest.param(_set("checks.0.message", KeyError), "message", id="field missing"),
        pytest.param(_set("subject", 3), "subject", id="subject of another type"),
    ],
)
def test_what_is_not_a_certificate_is_refused_in_one_line(data: object, message: str) -> None:
    with pytest.raises(FinetDeployError, match=message) as caught:
        Certificate.from_json_object(data)
    assert "\n" not in str(caught.value)


def test_junit_has_one_testcase_a_check_with_its_verdict() -> None:
    root = ElementTree.fromstring(junit_xml(full()))
    suite = root[0]
    cases = {case.get("name"): [child.tag for child in case] for case in suite.iter("testcase")}
    assert cases == {
        "algebra/fp64": ["system-out"],
        "artifact/pte": ["failure"],
        "deploy/weights": ["skipped"],
        "fp32/no_worse": ["error"],
        "contract/idempotent": ["error"],
    }
    counts = {key: suite.get(key) for key in ("tests", "failures", "errors", "skipped")}
    assert counts == {"tests": "5", "failures": "1", "errors": "2", "skipped": "1"}
    failure = suite.find("testcase/failure")
    assert failure is not None
    assert failure.get("message") == "input photo_0: 3 of 3 values of the candidate are NaN or infinite"


@given(st.text(st.characters(exclude_categories=()), max_size=20))
def test_junit_is_xml_whatever_the_text(text: str) -> None:
    bad = check(text, False, figures={text: text})
    bad = msgspec.structs.replace(bad, message=text)
    missing = certificate(bad, check("b", None, reason=text), expected=(text, "b", text + "x"), subject=text)
    root = ElementTree.fromstring(junit_xml(missing).encode("utf-8"))
    assert len(list(root.iter("testcase"))) == 3


def test_summary_has_a_line_a_check_and_explains_each_metric_once() -> None:
    lines = summary_lines(full())
    assert lines[0].endswith("FAILED (2 checks made)")
    text = "\n".join(lines)
    for check_ in full().checks:
        assert text.count(check_.name) == 1
    assert "contract/idempotent: this check was not made" in text
    assert "no deploy model was given" in text
    explained = {line.split(":")[0].strip() for line in lines} & {"relative error", "SQNR", "top-1"}
    assert explained == {"relative error", "SQNR", "top-1"}
    assert len(summary_lines(full(), explain=False)) == len(lines) - 4


def test_an_artifact_is_judged_by_the_artifact_limit() -> None:
    b = {"x": np.ones((1, 4))}
    comparison = compare(b, {"x": b["x"] * (1 + 2e-5)})
    assert judge_artifact("onnx", comparison).passed is False
    assert judge_artifact("onnx", comparison, Limits(artifact=1e-4)).passed is True
    assert judge_artifact("onnx", comparison).name == "artifact/onnx"


def test_on_an_extreme_input_an_artifact_need_not_be_nearer_than_the_unfused_net_in_fp32_is() -> None:
    b = {"x": np.ones((1, 4))}
    own = compare(b, {"x": b["x"] * (1 + 2e-5)})
    measured = check_outputs(CONDITIONING, own, limit=1e-3)
    assert fp32_growth(certificate(measured), Limits()) == {}
    extreme = msgspec.structs.replace(measured, figures={**measured.figures, "ill_conditioned": ["x"]})
    known = certificate(extreme)
    assert fp32_growth(known, Limits())["x"] == pytest.approx(8.0, rel=1e-3)
    near, far = (compare(b, {"x": b["x"] * (1 + error)}) for error in (7e-5, 9e-5))
    assert judge_artifact("pte", near, certificate=known).passed is True
    assert judge_artifact("pte", near, certificate=certificate(check("a"))).passed is False
    assert judge_artifact("pte", far, certificate=known).passed is False


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("name", Limits.__struct_fields__)
def test_a_limit_that_is_not_a_positive_number_is_refused_by_name(name: str, value: float) -> None:
    with pytest.raises(UsageError, match=name):
        Limits(**{name: value})
