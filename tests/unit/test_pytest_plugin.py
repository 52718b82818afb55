"""The pytest plugin costs nothing where it is not asked for, and a wrong call is told before any test runs."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from tests.example_repositories import PROJECT, environment


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "no:cacheprovider",
        "-p",
        "finet_deploy.pytest_plugin",
        *arguments,
    ]
    variables = {**environment(), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=120)


def test_the_entry_point_is_a_module_that_pytest_can_load():
    tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    module = importlib.import_module(project["entry-points"]["pytest11"]["finet-deploy"])
    assert callable(module.pytest_addoption)


def test_without_its_option_nothing_is_imported_and_nothing_is_added(tmp_path):
    (tmp_path / "test_it.py").write_text(
        "import sys\n"
        "def test_nothing_heavy():\n"
        "    assert not {'torch', 'numpy', 'msgspec', 'finet_deploy.guard', 'finet_deploy.verify'} & set(sys.modules)\n"
    )
    done = run_pytest(tmp_path, "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def damaged(folder: Path) -> Path:
    folder.mkdir()
    (folder / "manifest.json").write_text("{")
    return folder


def test_a_damaged_manifest_is_one_failed_test_without_torch_and_without_a_traceback(tmp_path):
    folder = damaged(tmp_path / "bundle")
    (tmp_path / "conftest.py").write_text(
        "import sys\ndef pytest_unconfigure():\n    print('TORCH' if 'torch' in sys.modules else 'LIGHT')\n"
    )
    done = run_pytest(tmp_path, "--finet-bundle", folder.name, "-s")
    assert done.returncode == 1, done.stderr
    assert "1 failed" in done.stdout
    assert "bundle: manifest.json: not a bundle's manifest" in done.stdout
    assert "Traceback" not in done.stdout
    assert "LIGHT" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--finet-bundle", "nowhere"], "no such folder"),
        (["--finet-bundle", "."], "it has no manifest.json"),
        (["--finet-bundle", "bundle", "--finet-checkpoint", "none.safetensors"], "no such checkpoint"),
        (["--finet-bundle", "bundle", "--finet-min-sqnr", "-3"], "is no limit"),
        (["-o", "finet_bundles=made/*"], "nothing matches"),
    ],
)
def test_a_wrong_call_ends_with_usage_before_a_test_runs(tmp_path, arguments, message):
    damaged(tmp_path / "bundle")
    done = run_pytest(tmp_path, *arguments)
    assert done.returncode == pytest.ExitCode.USAGE_ERROR, done.stdout
    assert message in done.stderr
    assert "Traceback" not in done.stderr
