"""Profiles of a real network: every multiply-add is at its module, and what is counted is what `cost` counts."""

from __future__ import annotations

import json
import math
import shutil

import msgspec
import pytest

from finet_deploy.errors import FinetDeployError
from finet_deploy.export.bundle import read_bundle
from finet_deploy.profile.emulated import profile_instructions
from finet_deploy.profile.measured import PROFILE_SETTINGS, profile_time
from finet_deploy.profile.phone import PhoneProfiler
from finet_deploy.runner.cost import measure_cost
from finet_deploy.runner.counting import build_plugin
from finet_deploy.runner.emulate import find_qemu
from tests.cli import FAILED, USAGE, error_line, run_cli
from tests.device.android_setup import COOL, HASTE
from tests.device.local_connection import LocalConnection
from tests.device.runner_native import RUNTIMES, export_tiny, folder_or_skip

SHORT = msgspec.structs.replace(
    PROFILE_SETTINGS, warmup_min_seconds=0.0, timed_min_seconds=0.0, timed_max_runs=30
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return export_tiny(tmp_path_factory.mktemp("profile") / "tiny")


def modules_of(rows: list[dict]) -> dict[str, int]:
    """Multiply-adds by module."""
    found: dict[str, int] = {}
    for row in rows:
        if row["macs"]:
            found[row["module"]] = found.get(row["module"], 0) + row["macs"]
    return found


def expected_modules(bundle) -> dict[str, int]:
    nodes = read_bundle(bundle).operators().pte.nodes.values()
    return {node.module: node.macs for node in nodes if node.macs}


@pytest.fixture(scope="module")
def counted(bundle):
    folder_or_skip("aarch64")
    try:
        find_qemu(), build_plugin()
    except FinetDeployError as error:
        pytest.skip(str(error))
    cost = measure_cost([(bundle, None)], cores=["cortex-a76"], runtimes=["executorch"])
    return profile_instructions(read_bundle(bundle), core_name="cortex-a76"), cost


def test_the_instructions_of_all_rows_are_those_that_cost_counts_by_class_too(counted):
    profiles, cost = counted
    assert [profile.runtime for profile in profiles] == list(RUNTIMES)
    for profile in profiles:
        assert profile.emulated
        assert sum(item.cost for item in profile.rows) == profile.total
        assert all(item.cost > 0 for item in profile.rows)
    (row,) = cost.rows
    assert profiles[0].total == row.instructions
    for name, count in row.classes.items():
        assert sum(item.classes[name] for item in profiles[0].rows) == count


def test_an_operators_multiply_adds_are_among_its_own_instructions(bundle, counted):
    """Four lanes an instruction: shifted by one operator, nearly every row would break this."""
    for profile in counted[0]:
        rows = [row for row in profile.rows if row.macs]
        assert {row.module: row.macs for row in rows} == expected_modules(bundle)
        for row in rows:
            assert row.classes["fma"] >= 0.5 * row.macs / 4, row
        for row in profile.rows:
            if row.macs == 0 or row.macs is None:
                assert row.classes["fma"] <= 0.02 * profile.total, row


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_time_on_this_machine_has_every_module_and_sums_up(bundle, runtime, capsys):
    folder_or_skip()
    status, out, _ = run_cli(
        capsys, "profile", bundle, "--runtimes", runtime, "--rounds", "1", "--json", "-q"
    )
    assert status == 0
    (profile,) = json.loads(out)
    rows = profile["rows"]
    assert modules_of(rows) == expected_modules(bundle)
    assert math.isclose(sum(row["cost"] for row in rows), profile["total"], rel_tol=1e-9)
    assert math.isclose(sum(row["share"] for row in rows), 1, rel_tol=1e-9)
    assert all(row["cost"] > 0 for row in rows[:-1])
    assert all(row["of_bound"] > 0 for row in rows if row["macs"])
    assert not profile["emulated"] and profile["roofline"]["gmacs"]["value"] > 0


def test_a_phone_is_profiled_by_the_same_runner_over_adb(bundle, tmp_path):
    """A pretended phone: this machine's shell and this machine's runner, with the phone's files, jobs and pins."""
    folder = folder_or_skip()
    connection = LocalConnection(tmp_path / "phone")
    (tmp_path / "run").mkdir()
    with PhoneProfiler(connection, runner=lambda target: folder, patience=HASTE, rest=COOL) as phone:
        (profile,) = profile_time(
            read_bundle(bundle),
            device=phone,
            folder=tmp_path / "run",
            runtimes=["executorch"],
            rounds=1,
            settings=SHORT,
        )
    assert profile.device == connection.name
    assert modules_of([msgspec.structs.asdict(row) for row in profile.rows]) == expected_modules(bundle)
    assert profile.roofline is not None and profile.roofline.gmacs.value > 0


def test_what_cannot_be_profiled_is_one_readable_error(bundle, tmp_path, capsys):
    assert "no file for runtime" in error_line(
        capsys, USAGE, "profile", bundle, "--runtimes", "torch_mobile"
    ) or "no torch_mobile" in error_line(capsys, USAGE, "profile", bundle, "--runtimes", "torch_mobile")
    assert "give --cost alone" in error_line(
        capsys, USAGE, "profile", bundle, "--cost", "cortex-a76", "--device", "host"
    )
    assert "unknown core" in error_line(capsys, USAGE, "profile", bundle, "--cost", "cortex-a99")
    assert "no such bundle" in error_line(capsys, USAGE, "profile", tmp_path / "nothing")
    (tmp_path / "file").write_text("")
    assert "is a file" in error_line(capsys, USAGE, "profile", bundle, "-o", tmp_path / "file")


def test_a_damaged_file_of_operators_is_refused(bundle, tmp_path, capsys):
    copy = shutil.copytree(bundle, tmp_path / "copy")
    (copy / "operators.json").write_text("{}")
    assert "operators.json" in error_line(capsys, FAILED, "profile", copy)
