"""The example repository's guards pass its good export and catch five bad ones, each by what is wrong with it."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from finet_deploy.errors import FinetDeployError
from finet_deploy.files import sha256_file
from finet_deploy.guard import Policy, guard_bundle
from finet_deploy.runner.emulate import find_qemu
from finet_deploy.runner.folder import runner_folder
from tests.action_runner import ActionRun, run_action
from tests.example_repositories import BAD, EXAMPLE, PROJECT, commit_all, environment, example_repository, git

ACTION = PROJECT / "action.yml"
# The check that must catch each, and what it must name: the module, the input, the error, or the file.
CAUGHT = {
    "unfused": ("graph/onnx", ["in module bn1", "32 ReduceSum in the file, 0 in the manifest"]),
    "wrong_statistics": (
        "artifact/onnx",
        ["on input", "limit 1e-05", "first departing module: stage2.0.conv2"],
    ),
    "swapped_groups": (
        "artifact/onnx",
        ["on input", "limit 1e-05", "first departing module: stage2.0.conv1"],
    ),
    "int8_beyond_limit": ("artifact/onnx", ["SQNR", "limit 20 dB", "photo_"]),
    "flipped_byte": ("hash/model.onnx", ["SHA-256", "model.onnx"]),
}


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return example_repository(tmp_path_factory)


@pytest.fixture
def repository(example: Path, tmp_path: Path) -> Path:
    """A clone that a test may change: a branch `change` of a repository whose `main` is good."""
    copy = Path(shutil.copytree(example / "repository", tmp_path / "clone"))
    git(copy, "checkout", "--quiet", "-b", "change")
    return copy


def put(example: Path, name: str, repository: Path, into: str | None = None) -> Path:
    """A bad export in place of the good one, or beside it."""
    target = repository / "bundles" / (into or BAD[name])
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(example / "bad" / name / BAD[name], target))


def policy(repository: Path) -> Policy:
    return Policy(checkpoints=(repository / "checkpoint.safetensors",))


def pytest_in(
    repository: Path, *arguments: str, plugins: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """pytest as a user runs it there, with the plugin as its entry point loads it."""
    loaded = [word for name in ("finet_deploy.pytest_plugin", *plugins) for word in ("-p", name)]
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *loaded, *arguments]
    # Autoload off: an installed entry point of another checkout must not stand in for the file under test.
    variables = {**environment(), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    return subprocess.run(command, cwd=repository, env=variables, capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("bundle", ["classifier", "classifier_int8"])
def test_the_good_export_passes_every_check(example: Path, bundle: str) -> None:
    repository = example / "repository"
    certificate = guard_bundle(repository / "bundles" / bundle, policy(repository))
    assert certificate.passed, [(check.name, check.message) for check in certificate.failures]
    made = {check.name.partition("/")[0] for check in certificate.checks if check.passed}
    assert made == {
        "manifest",
        "hash",
        "files",
        "certificate",
        "form",
        "golden",
        "source",
        "graph",
        "artifact",
    }


@pytest.mark.parametrize("name", BAD)
def test_each_bad_export_is_caught_by_the_check_of_what_is_wrong_with_it(example: Path, name: str) -> None:
    check, words = CAUGHT[name]
    certificate = guard_bundle(example / "bad" / name / BAD[name], policy(example / "repository"))
    assert not certificate.passed
    found = certificate.check(check)
    assert found.passed is False
    assert all(word in found.message for word in words), found.message
    # The certificate that came with it still says that all is well: nothing here is caught by its text.
    assert all(item.acceptable for item in certificate.checks if item.stage == "certificate")


def rewritten(folder: Path, file: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a JSON file of a bundle; the manifest agrees."""
    data = json.loads((folder / file).read_text())
    change(data)
    (folder / file).write_text(json.dumps(data))
    if file != "manifest.json":
        digest = sha256_file(folder / file)
        rewritten(folder, "manifest.json", lambda manifest: manifest["certificate"].update(sha256=digest))


def test_an_export_of_changed_statistics_agrees_with_itself_and_not_with_the_checkpoint(
    repository: Path,
) -> None:
    """Seen from the bundle: the checkpoint that it names has other statistics than what was exported."""
    bundle, checkpoint = repository / "bundles/classifier", repository / "checkpoint.safetensors"
    tensors, metadata = load_file(checkpoint), {}
    with safe_open(checkpoint, framework="np") as stream:
        metadata = stream.metadata()
    name = next(name for name in tensors if name.startswith("stage3") and name.endswith("running_var"))
    tensors[name] = tensors[name] * np.float32(1.01)
    save_file(tensors, checkpoint, metadata)
    found = guard_bundle(bundle, policy(repository))
    assert [check.name for check in found.failures] == ["source/weights", "source/golden"]
    assert "none of the checkpoints given" in found.check("source/weights").message
    digest = sha256_file(checkpoint)
    rewritten(bundle, "manifest.json", lambda manifest: manifest["source"].update(sha256=digest))
    assert guard_bundle(bundle, Policy()).passed
    found = guard_bundle(bundle, policy(repository))
    assert [check.name for check in found.failures] == ["source/weights", "source/golden"]
    assert "weights or statistics were changed after" in found.check("source/weights").message
    assert "limit 1e-09" in found.check("source/golden").message


def test_weights_that_are_no_tensors_are_a_failed_check_and_no_crash(repository: Path) -> None:
    bundle = repository / "bundles/classifier"
    proto = onnx.load(bundle / "model.onnx")
    proto.graph.initializer[0].raw_data = proto.graph.initializer[0].raw_data[:-3]
    (bundle / "model.onnx").write_bytes(proto.SerializeToString())
    entry = {"sha256": sha256_file(bundle / "model.onnx"), "bytes": (bundle / "model.onnx").stat().st_size}
    rewritten(bundle, "manifest.json", lambda manifest: manifest["artifacts"]["onnx"].update(entry))
    found = guard_bundle(bundle, policy(repository))
    assert [check.name for check in found.failures] == ["artifact/onnx"]


def test_an_export_that_lowered_its_own_limit_is_held_to_the_repositorys(repository: Path) -> None:
    """As `export --min-sqnr 10` of a network that reaches 15 dB: certificate and file agree, the guard does not."""
    bundle = repository / "bundles/classifier_int8"
    found = guard_bundle(bundle).check("artifact/onnx").figures["median_sqnr_db"]
    assert isinstance(found, float)
    assert guard_bundle(bundle, Policy(min_sqnr_db=found - 1)).passed
    failures = guard_bundle(bundle, Policy(min_sqnr_db=found + 1)).failures
    assert [check.name for check in failures] == ["certificate/artifact/onnx", "artifact/onnx"]
    assert f"this repository demands {found + 1:g} dB" in failures[0].message


def test_pytest_has_an_item_a_check_and_says_what_failed_without_a_traceback(
    example: Path, repository: Path, tmp_path: Path
) -> None:
    for name in BAD:
        put(example, name, repository, into=name)
    done = pytest_in(
        repository, "--junitxml", str(tmp_path / "j.xml"), "-q", "-rf", "-n", "2", plugins=("xdist.plugin",)
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stdout
    assert ".py:" not in done.stdout
    cases = list(ElementTree.parse(tmp_path / "j.xml").getroot().iter("testcase"))
    failed = {(case.get("classname"), case.get("name")) for case in cases if case.find("failure") is not None}
    assert {where for where, _ in failed} == {f"bundles.{name}" for name in BAD}
    for name, (check, words) in CAUGHT.items():
        assert (f"bundles.{name}", check) in failed
        assert all(word in done.stdout for word in words)
    good = [case for case in cases if case.get("classname") == "bundles.classifier"]
    assert len(good) > 25
    assert not list(ElementTree.parse(tmp_path / "j.xml").getroot().iter("error"))


def test_items_are_chosen_by_name_and_an_untouched_repository_passes(repository: Path) -> None:
    options = ("-k", "hash or unlisted or (int8 and artifact)", "-n", "2")
    done = pytest_in(repository, *options, plugins=("xdist.plugin",))
    assert done.returncode == 0, done.stdout
    # Five files and one look for others in each bundle; the certificate's word on the file, and the file itself.
    assert "14 passed" in done.stdout, done.stdout


def path_with_program(tmp_path: Path) -> str:
    """A PATH on which `finet-deploy` is this checkout's."""
    programs = tmp_path / "programs"
    programs.mkdir(exist_ok=True)
    program = programs / "finet-deploy"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m finet_deploy "$@"\n')
    program.chmod(0o755)
    return os.pathsep.join([str(programs), os.environ["PATH"]])


def run_guard_action(repository: Path, tmp_path: Path, **inputs: str) -> ActionRun:
    """The action's steps, as a pull request to main runs them."""
    given = {
        "install": "false",
        "cost": "off",
        **{key.replace("_", "-"): value for key, value in inputs.items()},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", environment()["PYTHONPATH"])
        patch.setenv("OMP_NUM_THREADS", "1")
        return run_action(
            ACTION,
            repository,
            given,
            scratch=tmp_path / "scratch",
            github={"base_ref": "main"},
            path=path_with_program(tmp_path),
        )


def test_the_action_passes_a_good_change_and_compares_it_with_the_base_branch(
    repository: Path, tmp_path: Path
) -> None:
    (repository / "README.md").write_text("Other words.\n")
    commit_all(repository, "Words")
    cost = "on" if can_count() else "off"
    bundle = "bundles/classifier"
    done = run_guard_action(repository, tmp_path, cost=cost, bundles=bundle)
    assert not done.failed, done.log
    assert done.outputs == {"passed": "true", "sarif": "finet-deploy.sarif"}
    assert "passed: 1 bundles checked, 0 failed" in done.summary
    size = (repository / bundle / "model.onnx").stat().st_size
    assert (
        f"| bundles/classifier | model.onnx | bytes | {size:,} | {size:,} | +0.00 % | 1 % |" in done.summary
    )
    assert ("instructions, cortex-a76 (emulated)" in done.summary) is (cost == "on")
    assert ("counted under emulation" in done.summary) is (cost == "on")
    assert json.loads((repository / "finet-deploy.sarif").read_text())["runs"][0]["results"] == []
    assert done.steps["Install finet-deploy"] is None
    assert done.used == []


def can_count() -> bool:
    """Whether the emulator and the runner are here; in CI both are."""
    try:
        find_qemu()
        runner_folder("aarch64")
    except FinetDeployError:
        return False
    return True


def test_the_action_fails_bad_changes_and_a_file_that_grew_and_hands_sarif_on(
    example: Path, repository: Path, tmp_path: Path
) -> None:
    put(example, "unfused", repository)
    put(example, "int8_beyond_limit", repository)
    commit_all(repository, "Faster, somebody said")
    # Without the checkpoint, which is pytest's part above: another process that loads torch.
    done = run_guard_action(repository, tmp_path, max_size_growth="0.1", upload_sarif="true")
    assert done.failed
    assert done.outputs["passed"] == "false"
    assert "**failed**: 2 bundles checked, 2 failed" in done.summary
    assert "| bundles/classifier\\_int8 |" in done.summary
    assert "graph/onnx: operator Conv" in done.summary
    assert "SQNR" in done.summary
    assert "**grew**" in done.summary
    assert done.used == [
        (
            "github/codeql-action/upload-sarif@v3",
            {"sarif_file": "finet-deploy.sarif", "category": "finet-deploy"},
        )
    ]
    results = json.loads((repository / "finet-deploy.sarif").read_text())["runs"][0]["results"]
    found = {
        (result["ruleId"], result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"])
        for result in results
    }
    assert found == {
        ("finet/graph", "bundles/classifier/manifest.json"),
        ("finet/artifact", "bundles/classifier_int8/manifest.json"),
    }


@pytest.mark.parametrize(
    "hostile",
    [
        "$(touch pwned)",
        "`touch pwned`",
        "bundles/x; touch pwned",
        "bundles/x' && touch pwned && echo '",
        '"; touch pwned; "',
        "--output=pwned",
        "${{ github.token }}",
    ],
)
@pytest.mark.parametrize("name", ["bundles", "base", "checkpoints", "cores"])
def test_no_input_of_the_action_is_ever_run(example: Path, tmp_path: Path, name: str, hostile: str) -> None:
    """The scripts hold no expression, and what the environment holds becomes one argument each."""
    from finet_deploy.commands.guard_action import arguments_of

    variables = {"FINET_BUNDLES": "bundles/*", f"FINET_{name.upper()}": hostile}
    arguments = arguments_of(variables)
    option = {"bundles": hostile, "base": f"--base={hostile}", "checkpoints": f"--checkpoint={hostile}"}
    assert arguments.count(option.get(name, f"--core={hostile}")) == 1
    assert arguments.index("--") < arguments.index(variables["FINET_BUNDLES"])


def test_a_hostile_bundle_name_goes_through_the_whole_action_without_being_run(
    example: Path, repository: Path, tmp_path: Path
) -> None:
    done = run_guard_action(repository, tmp_path, bundles="$(touch pwned)\n`touch pwned`; touch pwned")
    assert done.failed
    assert done.outputs["passed"] == "false"
    assert "no bundle is there" in done.log
    assert "no bundle is there" in done.summary
    assert "Traceback" not in done.log
    assert not (repository / "pwned").exists()


def test_the_actions_scripts_hold_no_expression_and_every_input_is_described_and_used() -> None:
    definition = yaml.safe_load(ACTION.read_text())
    steps = definition["runs"]["steps"]
    assert all("${{" not in step.get("run", "") for step in steps)
    used = "".join(str(step) for step in steps)
    for name, item in definition["inputs"].items():
        assert item["description"], name
        assert f"inputs.{name}" in used, name
        assert isinstance(item["default"], str), name
    workflow = yaml.safe_load((EXAMPLE / ".github/workflows/exports.yml").read_text())
    (step,) = [item for item in workflow["jobs"]["guard"]["steps"] if "finet-deploy" in item["uses"]]
    assert set(step["with"]) <= set(definition["inputs"])


def hooks() -> list[dict[str, str]]:
    return yaml.safe_load((PROJECT / ".pre-commit-hooks.yaml").read_text())


def test_the_hooks_entry_passes_whole_bundles_and_names_the_file_that_changed(
    example: Path, repository: Path
) -> None:
    import re

    (entry,), (pattern,) = ({hook[key] for hook in hooks()} for key in ("entry", "files"))
    words = entry.split()
    assert words[0] == "finet-deploy"

    def hook() -> subprocess.CompletedProcess[str]:
        changed = [name for name in git(repository, "ls-files").splitlines() if re.search(pattern, name)]
        assert len(changed) == 12
        command = [sys.executable, "-m", "finet_deploy", *words[1:], *changed]
        return subprocess.run(command, cwd=repository, env=environment(), capture_output=True, text=True)

    good = hook()
    assert good.returncode == 0, good.stderr
    put(example, "flipped_byte", repository)
    bad = hook()
    assert bad.returncode == 1
    assert "hash/model.onnx" in bad.stdout
    assert "bundles/classifier: FAILED" in bad.stdout
    assert "bundles/classifier_int8: passed" in bad.stdout


def test_pre_commit_itself_runs_the_hook_on_a_commit(example: Path, repository: Path, tmp_path: Path) -> None:
    """With the hooks' file out of a repository of its own, as pre-commit takes it; nothing is installed."""
    if importlib.util.find_spec("pre_commit") is None:
        pytest.skip("pre-commit is not installed")
    hook_repository = tmp_path / "hooks"
    hook_repository.mkdir()
    shutil.copy(PROJECT / ".pre-commit-hooks.yaml", hook_repository)
    git(hook_repository, "init", "--quiet")
    commit_all(hook_repository, "The hooks")
    variables = {
        **environment(),
        "PRE_COMMIT_HOME": str(tmp_path / "cache"),
        "PATH": path_with_program(tmp_path),
    }

    def pre_commit() -> subprocess.CompletedProcess[str]:
        words = ["try-repo", str(hook_repository), "finet-deploy-guard-system"]
        command = [sys.executable, "-m", "pre_commit", *words]
        return subprocess.run(
            command, cwd=repository, env=variables, capture_output=True, text=True, timeout=120
        )

    manifest = repository / "bundles/classifier/manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    git(repository, "add", "--all")
    good = pre_commit()
    assert good.returncode == 0, good.stdout + good.stderr
    assert "Passed" in good.stdout
    put(example, "flipped_byte", repository)
    git(repository, "add", "--all")
    bad = pre_commit()
    assert bad.returncode == 1, bad.stdout + bad.stderr
    assert "FAIL     hash/model.onnx: file was changed" in bad.stdout
