"""The plans in `tests/data/plan`: the app's planner is tested against the same files, so a change breaks both."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec
import pytest

from finet_deploy.bench.app_resources import app_resources
from finet_deploy.bench.records import RecordLog, read_job
from finet_deploy.export import read_bundle
from tests import plan_data
from tests.bench_fakes import make_records
from tests.cli import run_cli

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
    for name in ("net_a", "net_b", "net_b_unfused", "net_c_int8", "net_c_fp16"):
        assert read_bundle(plan_data.FOLDER / name).manifest.certificate.passed
    limits = plan_data.plan(*plan_data.CASES["two.json"]).rows[0].golden.output_limits
    assert limits["photo_0"] == 1e-5 < limits["large"]


def test_below_fp32_a_limit_is_a_multiple_of_the_files_own_error_and_never_below_its_precisions_floor():
    rows = {row.id: row.golden.output_limits for row in plan_data.plan(*plan_data.CASES["int8.json"]).rows}
    assert rows["executorch/0"] == {"photo_0": 0.026, "large": 1e-5}
    assert rows["onnxruntime/0"] == {"photo_0": pytest.approx(2 * (0.013 + 1 / 70)), "large": 0.34}
    (row, *_) = plan_data.plan(*plan_data.CASES["fp16.json"]).rows
    assert row.golden.output_limits == {"photo_0": 0.026, "large": 0.01}


@pytest.mark.parametrize("path", app_resources())
def test_the_app_has_the_structures_presets_and_limits_of_this_package(path):
    """When this fails: `python -m finet_deploy.bench.app_resources android_app`, and see what the Java needs."""
    assert (APP / path).read_text() == app_resources()[path]


def test_a_run_that_was_planned_in_the_app_is_reported_like_any_other(tmp_path, capsys):
    shutil.copytree(plan_data.FOLDER / "net_a", tmp_path / "net_a")
    shutil.copytree(plan_data.FOLDER / "net_b", tmp_path / "net_b")
    run = tmp_path / "run-20261121-000000"
    run.mkdir()
    (run / "job.json").write_bytes((plan_data.FOLDER / "two.json").read_bytes())
    job = read_job(run)
    rows = {row.id: row for row in job.rows}
    with RecordLog.open(run) as log:
        for visit in job.visits:
            *records, end = make_records(visit, rows[visit.row], [1_000_000 + visit.index] * 40)
            errors = dict.fromkeys(rows[visit.row].golden.output_limits, 1e-7)
            log.append([*records, msgspec.structs.replace(end, output_errors=errors)])
    status, out, _ = run_cli(capsys, "report", run)
    assert status == 0
    assert "net a" in out and "net b" in out and "Example Phone 7" in out
    assert "invalid" not in out
