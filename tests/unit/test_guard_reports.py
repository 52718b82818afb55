"""What a guard says: the summary of a pull request, growth over the base, and the action's inputs as arguments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finet_deploy.commands.guard_action import arguments_of
from finet_deploy.errors import UsageError
from finet_deploy.guard import Policy
from finet_deploy.guard.growth import Growth, GrowthLimits
from finet_deploy.guard.summary import markdown_summary, plain_text
from finet_deploy.verify import Certificate, Check


def certificate(passed: bool, subject: str = "net", message: str = "why") -> Certificate:
    check = Check(name="artifact/onnx", stage="artifact", passed=passed, message=message)
    return Certificate(subject=subject, expected=(check.name,), checks=(check,))


def growth(base: int | None, new: int, core: str | None = None) -> Growth:
    measure = "bytes" if core is None else "instructions"
    return Growth(bundle="b", file="model.onnx", measure=measure, core=core, base=base, new=new, limit=1.0)


@pytest.mark.parametrize(
    ("base", "new", "percent", "within"),
    [(None, 10**6, None, True), (100, 101, 1.0, True), (1000, 1011, 1.1, False), (100, 50, -50.0, True)],
)
def test_growth_is_of_what_was_there_and_new_files_have_none(base, new, percent, within):
    row = growth(base, new)
    assert row.percent == (None if percent is None else pytest.approx(percent))
    assert row.within is within


def test_the_summary_names_what_failed_and_labels_what_is_emulated():
    rows = [growth(100, 100), growth(10**6, 2 * 10**6, core="cortex-a76"), growth(None, 5)]
    text = markdown_summary(
        [certificate(True, "good"), certificate(False, "bad")], rows, ["not counted: no qemu"]
    )
    assert "**failed**: 2 bundles checked, 1 failed, 1 figures grew beyond their limit" in text
    assert "| good | 1 | 0 | passed |" in text
    assert "* artifact/onnx: why" in text
    assert (
        "| b | model.onnx | instructions, cortex-a76 (emulated) | 1,000,000 | 2,000,000 | +100.00 % | 1 % | **grew** |"
        in text
    )
    assert "| b | model.onnx | bytes |  | 5 | new | 1 % |  |" in text
    assert "A cost, not a speed" in text
    assert "Note: not counted: no qemu" in text
    assert "emulation" not in markdown_summary([certificate(True)], [growth(100, 100)])


@given(st.text())
def test_text_out_of_a_file_stays_text_in_markdown(text):
    found = plain_text(text)
    assert "\n" not in found
    assert "<" not in found
    assert not found.count("|") - found.count("\\|")
    summary = markdown_summary([certificate(False, text, text)])
    assert len(summary.splitlines()) == len(markdown_summary([certificate(False)]).splitlines())


def test_the_actions_inputs_are_options_and_bundles_come_last():
    found = arguments_of(
        {
            "FINET_BUNDLES": "bundles/a\n\n  bundles/b b \n",
            "FINET_CHECKPOINTS": "x.safetensors\ny.safetensors",
            "FINET_CORES": "cortex-a53",
            "FINET_BASE": "main",
            "FINET_MIN_SQNR": "",
            "FINET_ALLOW_UNFUSED": "true",
            "GITHUB_STEP_SUMMARY": "/tmp/s",
        }
    )
    assert found[found.index("--") :] == ["--", "bundles/a", "bundles/b b"]
    assert set(found[: found.index("--")]) == {
        "--base=main", "--checkpoint=x.safetensors", "--checkpoint=y.safetensors", "--core=cortex-a53",
        "--allow-unfused", "--summary=/tmp/s",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "no bundle is named"),
        ({"FINET_BUNDLES": "b", "FINET_ALLOW_UNFUSED": "yes"}, "neither true nor false"),
        ({"FINET_BUNDLES": "b", "FINET_BASE": "main\nother"}, "more than one line"),
    ],
)
def test_inputs_that_stand_for_nothing_are_usage_errors(variables, message):
    with pytest.raises(UsageError, match=message):
        arguments_of(variables)


def test_a_repository_can_demand_more_of_int8_and_no_policy_is_nonsense(tmp_path):
    assert Policy().sqnr_floor("float32") is None
    assert (Policy().sqnr_floor("int8"), Policy().sqnr_floor("float16")) == (20.0, 40.0)
    assert Policy(min_sqnr_db=33.0).sqnr_floor("int8") == 33.0
    for fields in ({"min_sqnr_db": -1.0}, {"min_delegated_share": 2.0}, {"checkpoints": (tmp_path / "no",)}):
        with pytest.raises(UsageError):
            Policy(**fields)
    with pytest.raises(UsageError, match="is no limit"):
        GrowthLimits(bytes_percent=-1.0)
