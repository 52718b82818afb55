"""The bundles of a suite: made on first use, used again, and never put in the place of somebody else's."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path

import pytest

from finet_deploy.api.suites import suite_rows
from finet_deploy.bench.settings import Suite, SuiteRow, load_suite
from finet_deploy.commands.console import Console
from finet_deploy.errors import UsageError
from tests.cli import run_cli

EXPORT = importlib.import_module("finet_deploy.export")  # the root's attribute of that name is a function
NETWORK = ("squeezenet", {"norm": "bn", "cifar": True, "num_classes": 10})


def suite(*names: str, fuse: bool = True, **changes: object) -> Suite:
    model, options = NETWORK
    rows = [
        SuiteRow(label=name, name=name, model=model, options={**options, **changes}, fuse=fuse)
        for name in names
    ]
    return Suite(name="s", description="", mixed_fusion=False, rows=tuple(rows))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder after a first use."""
    folder = tmp_path_factory.mktemp("suite")
    (row,) = suite_rows(suite("a"), folder, Console())
    assert (row.bundle, row.label) == (folder / "a", "a")
    return folder


def test_what_is_there_is_used_again_and_what_is_missing_is_made(made, tmp_path, monkeypatch, capsys) -> None:
    shutil.copytree(made / "a", tmp_path / "a")
    exported = []

    def export(model: object, path: Path, **options: object) -> None:
        exported.append((path.name, options["fuse_model"], options["overwrite"]))
        shutil.copytree(made / "a", path)

    monkeypatch.setattr(EXPORT, "export", export, raising=False)
    capsys.readouterr()
    rows = suite_rows(suite("a", "b"), tmp_path, Console())
    assert [row.label for row in rows] == ["a", "b"]
    assert exported == [("b", True, False)]
    suite_rows(suite("a", "b"), tmp_path, Console())
    assert len(exported) == 1
    assert capsys.readouterr().err.count("reused") == 3


def test_what_an_older_version_made_is_made_again(made, tmp_path, monkeypatch) -> None:
    shutil.copytree(made / "a", tmp_path / "a")
    manifest = json.loads((tmp_path / "a/manifest.json").read_text())
    (tmp_path / "a/manifest.json").write_text(json.dumps({**manifest, "tool_version": "0.0.1"}))
    seen = []
    monkeypatch.setattr(
        EXPORT, "export", lambda *_, **options: seen.append(options["overwrite"]), raising=False
    )
    suite_rows(suite("a"), tmp_path, Console())
    assert seen == [True]


@pytest.mark.parametrize("changes", [{"num_classes": 11}, {"fuse": False}])
def test_another_network_under_the_name_is_left_alone(made, changes) -> None:
    with pytest.raises(UsageError, match=r"needed for 'a' and holds another bundle"):
        suite_rows(suite("a", **changes), made, Console())


@pytest.mark.thorough
def test_bench_exports_table4_on_first_use_and_measures_it(capsys, tmp_path) -> None:
    command = ["bench", "--suite", "table4", "--preset", "smoke", "--runtimes", "onnxruntime"]
    for run, reused in (("first", 0), ("second", 6)):
        status, _, err = run_cli(capsys, *command, "--bundles-dir", tmp_path / "b", "-o", tmp_path / run)
        assert status == 0, err
        assert err.count(": reused") == reused
        report = (tmp_path / run / "report.md").read_text()
        assert all(f"| {row.label} |" in report for row in load_suite("table4").rows)
