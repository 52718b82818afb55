"""The plans in `tests/data/plan`: the app's planner is tested against the same files, so a change breaks both."""

from __future__ import annotations

from pathlib import Path

import pytest

from finet_deploy.bench.app_resources import app_resources
from finet_deploy.bench.records import read_job
from finet_deploy.export import read_bundle
from tests import plan_data

APP = Path(__file__).resolve().parents[2] / "android_app"


@pytest.mark.parametrize("name", plan_data.CASES)
def test_the_plan_of_the_golden_bundles_is_the_golden_job(name, tmp_path):
    assert plan_data.encode(plan_data.plan(*plan_data.CASES[name])) == (plan_data.FOLDER / name).read_bytes()
    (tmp_path / "job.json").write_bytes((plan_data.FOLDER / name).read_bytes())
    assert read_job(tmp_path).runner == "app"


def test_the_apps_tests_are_told_the_same_cases_and_schedules():
    assert (plan_data.FOLDER / "cases.json").read_text() == plan_data.cases()
    assert (plan_data.FOLDER / "schedules.json").read_text() == plan_data.schedules()


def test_the_golden_bundles_are_bundles_and_one_limit_grows_with_the_certificate():
    for name in ("net_a", "net_b", "net_b_unfused"):
        assert read_bundle(plan_data.FOLDER / name).manifest.certificate.passed
    limits = plan_data.plan(*plan_data.CASES["two.json"]).rows[0].golden.output_limits
    assert limits["photo_0"] == 1e-5 < limits["large"]


@pytest.mark.parametrize("path", app_resources())
def test_the_app_has_the_structures_presets_and_limits_of_this_package(path):
    """When this fails: `python -m finet_deploy.bench.app_resources android_app`, and see what the Java needs."""
    assert (APP / path).read_text() == app_resources()[path]
