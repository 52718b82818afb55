"""Whatever goes wrong while a bundle is made: nothing under the target's name, nothing lost that was there."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import finet_deploy.files
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.export import Bundle, CheckFailed, export, read_bundle
from finet_deploy.export import exporter as exporter_module
from finet_deploy.verify import Limits
from tests.warm_process import run_warm

REPOSITORY = Path(__file__).parents[2]
Inputs = dict[str, Tensor]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_model_in_train_mode_is_refused_by_name(
    tmp_path: Path, tiny_model: nn.Module, tiny_inputs: Inputs
) -> None:
    tiny_model.bn.train()
    with pytest.raises(UsageError, match=r"train mode \[bn\]"):
        export(tiny_model, tmp_path / "b", inputs=tiny_inputs)
    assert tiny_model.bn.training
    assert not list(tmp_path.iterdir())


def test_nan_weights_are_refused_by_name(tmp_path: Path, tiny_model: nn.Module, tiny_inputs: Inputs) -> None:
    tiny_model.fc.weight.data[0, 0] = float("nan")
    with pytest.raises(FinetDeployError, match=r"not finite.*fc\.weight"):
        export(tiny_model, tmp_path / "b", inputs=tiny_inputs)
    assert not list(tmp_path.iterdir())


def test_weights_that_are_not_fp32_are_refused(
    tmp_path: Path, tiny_model: nn.Module, tiny_inputs: Inputs
) -> None:
    with pytest.raises(UsageError, match="float64"):
        export(tiny_model.double(), tmp_path / "b", inputs=tiny_inputs)


@pytest.mark.parametrize(
    ("formats", "found"), [(("tflite",), "unknown format 'tflite'"), ((), "no format"), ("pte", "no format")]
)
def test_formats_are_checked_first(tmp_path: Path, tiny_model: nn.Module, formats, found: str) -> None:
    with pytest.raises(UsageError, match=found):
        export(tiny_model, tmp_path / "b", formats=formats)


@pytest.mark.parametrize(
    "bad",
    [
        torch.randn(2, 3, 16, 16),
        torch.randn(1, 3, 16, 16, dtype=torch.float64),
        torch.randn(1, 3, 16),
        torch.randn(1, 3, 32, 32),
    ],
)
def test_inputs_of_another_form_are_refused(
    tmp_path: Path, tiny_model: nn.Module, tiny_inputs: Inputs, bad: Tensor
) -> None:
    with pytest.raises(UsageError, match="input 'bad'"):
        export(tiny_model, tmp_path / "b", inputs={**tiny_inputs, "bad": bad})


def test_a_network_from_elsewhere_needs_inputs_or_preprocessing(
    tmp_path: Path, tiny_model: nn.Module
) -> None:
    with pytest.raises(UsageError, match="give inputs or preprocessing"):
        export(tiny_model, tmp_path / "b")


def test_a_failing_certificate_names_the_check_and_writes_nothing(
    tmp_path: Path, tiny_model: nn.Module, tiny_inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = exporter_module.fuse

    def wrong(model: nn.Module, **options: object) -> nn.Module:
        fused = right(model, **options)
        nn.init.zeros_(fused.depthwise.bias)
        return fused

    monkeypatch.setattr(exporter_module, "fuse", wrong)
    with pytest.raises(CheckFailed, match=r"check failed: deploy/weights: ") as caught:
        export(tiny_model, tmp_path / "b", inputs=tiny_inputs)
    assert not caught.value.certificate.passed
    assert caught.value.exit_code == 1
    assert not list(tmp_path.iterdir())


def test_a_file_that_its_runtime_computes_wrongly_is_not_shipped(
    tmp_path: Path, tiny_model: nn.Module, tiny_inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exporter that drops a bias: only running the written file can tell."""
    right = exporter_module.to_ptl

    def wrong(model: nn.Module, x: Tensor):
        torch.nn.init.zeros_(model.fc.bias)
        return right(model, x)

    monkeypatch.setattr(exporter_module, "to_ptl", wrong)
    with pytest.raises(CheckFailed, match=r"artifact/ptl: worst relative error"):
        export(tiny_model, tmp_path / "b", inputs=tiny_inputs, formats=("ptl",))
    assert not list(tmp_path.iterdir())


def test_an_existing_bundle_is_not_touched_without_overwrite(
    bundle_copy: Callable[[], Path], tiny_model: nn.Module, tiny_inputs: Inputs
) -> None:
    folder = bundle_copy()
    before = contents(folder)
    with pytest.raises(UsageError, match="output exists"):
        export(tiny_model, folder, inputs=tiny_inputs)
    assert contents(folder) == before


def test_an_existing_bundle_survives_a_failing_overwrite(
    bundle_copy: Callable[[], Path], tiny_model: nn.Module, tiny_inputs: Inputs
) -> None:
    folder = bundle_copy()
    before = contents(folder)
    limits = Limits(artifact=1e-12)  # the last check of all, so that every file was written before
    with pytest.raises(CheckFailed, match="artifact/ptl"):
        export(tiny_model, folder, inputs=tiny_inputs, formats=("ptl",), overwrite=True, limits=limits)
    assert contents(folder) == before
    assert [item.name for item in folder.parent.iterdir()] == ["tiny"]


def test_overwrite_replaces_a_bundle_by_the_new_one_alone(
    bundle_copy: Callable[[], Path], tiny_model: nn.Module, tiny_inputs: Inputs
) -> None:
    folder = bundle_copy()
    export(tiny_model, folder, inputs=tiny_inputs, formats=("ptl",), overwrite=True, name="second")
    assert read_bundle(folder).manifest.name == "second"
    assert not (folder / "model.onnx").exists()
    assert [item.name for item in folder.parent.iterdir()] == ["tiny"]


def test_a_folder_that_is_no_bundle_is_never_deleted(
    tmp_path: Path, tiny_model: nn.Module, tiny_inputs: Inputs
) -> None:
    target = tmp_path / "mine"
    target.mkdir()
    (target / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="not a bundle: it is never overwritten"):
        export(tiny_model, target, inputs=tiny_inputs, overwrite=True)
    assert (target / "thesis.tex").read_text() == "years of work"


def test_a_foreign_file_inside_a_bundle_is_never_deleted(
    bundle_copy: Callable[[], Path], tiny_model: nn.Module, tiny_inputs: Inputs
) -> None:
    folder = bundle_copy()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"also holds notes\.txt"):
        export(tiny_model, folder, inputs=tiny_inputs, overwrite=True)
    assert (folder / "notes.txt").exists()


def test_a_file_in_the_way_is_kept(tmp_path: Path, tiny_model: nn.Module, tiny_inputs: Inputs) -> None:
    (tmp_path / "b").write_text("a file")
    with pytest.raises(UsageError, match="not a folder"):
        export(tiny_model, tmp_path / "b", inputs=tiny_inputs, overwrite=True)
    with pytest.raises(FinetDeployError, match="cannot create a folder"):
        export(tiny_model, tmp_path / "b" / "c", inputs=tiny_inputs)
    assert (tmp_path / "b").read_text() == "a file"


def test_an_unwritable_folder_is_found_before_any_work(
    tmp_path: Path, tiny_model: nn.Module, tiny_inputs: Inputs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_args: object, **_kwargs: object) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(finet_deploy.files.tempfile, "mkdtemp", refuse)  # root may write anywhere
    steps: list[str] = []
    with pytest.raises(FinetDeployError, match=r"Permission denied.*choose a folder that you may write to"):
        export(tiny_model, tmp_path / "b", inputs=tiny_inputs, progress=steps.append)
    assert steps == []


@pytest.mark.parametrize(
    "file", ["model.pte", "model.ptl", "golden.safetensors", "certificate.json", "manifest.json"]
)
def test_a_full_disk_at_any_file_leaves_the_old_bundle(
    bundle_copy: Callable[[], Path],
    tiny_model: nn.Module,
    tiny_inputs: Inputs,
    monkeypatch: pytest.MonkeyPatch,
    file: str,
) -> None:
    folder = bundle_copy()
    before = contents(folder)
    rename = os.replace

    def full(source: str, target: str | Path) -> None:
        if Path(target).name == file:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(source, target)

    monkeypatch.setattr(finet_deploy.files.os, "replace", full)
    formats = ("pte",) if file == "model.pte" else ("ptl",)
    with pytest.raises(FinetDeployError, match=f"No space left on device.*{file}.*free some space"):
        export(tiny_model, folder, inputs=tiny_inputs, formats=formats, overwrite=True)
    assert contents(folder) == before
    assert [item.name for item in folder.parent.iterdir()] == ["tiny"]


@pytest.mark.parametrize("step", ["fuse", "verify", "export ptl", "run ptl", "write the bundle"])
def test_ctrl_c_at_any_step_leaves_nothing(
    tmp_path: Path, tiny_model: nn.Module, tiny_inputs: Inputs, step: str
) -> None:
    def interrupt(found: str) -> None:
        if found == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(tiny_model, tmp_path / "b", inputs=tiny_inputs, formats=("ptl",), progress=interrupt)
    assert not list(tmp_path.iterdir())


KILLED = """
import os, signal, sys, torch
from pathlib import Path
from finet_deploy.export import export
from tests.export.conftest import TinyNet, noise_inputs, well_conditioned

def step(name):
    if name == sys.argv[2]:
        os.kill(os.getpid(), signal.SIGKILL)

model = well_conditioned(TinyNet())
export(model, sys.argv[1], inputs=noise_inputs(16), formats=("ptl",), overwrite=True, progress=step)
"""


def run_killed(code: str, *arguments: object) -> tuple[int, str]:
    """Exit status and stderr of a process of its own."""
    return run_warm(code, arguments, REPOSITORY, purpose="exporting")


@pytest.mark.parametrize("existing", [False, True])
def test_a_killed_process_leaves_nothing_under_the_name_and_the_old_bundle_whole(
    tmp_path: Path, pristine: Bundle, existing: bool
) -> None:
    target = tmp_path / "b"
    if existing:
        shutil.copytree(pristine.path, target)
    status, err = run_killed(KILLED, target, "write the bundle")
    assert status == -signal.SIGKILL, err
    if existing:
        assert read_bundle(target).manifest == pristine.manifest
    else:
        assert not target.exists()


def test_sigint_to_a_running_export_leaves_nothing(tmp_path: Path) -> None:
    code = KILLED.replace("signal.SIGKILL", "signal.SIGINT")
    status, err = run_killed(code, tmp_path / "b", "export ptl")
    assert status != 0
    assert "KeyboardInterrupt" in err
    assert not list(tmp_path.iterdir())


@pytest.fixture
def small_disk(tmp_path: Path):
    """A real file system with 40 kB left; where mounting is not allowed, a process limit on file size stands in."""
    mount = tmp_path / "disk"
    mount.mkdir()
    mounted = (
        os.geteuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=40k", "tmpfs", str(mount)], capture_output=True
        ).returncode
    )
    yield mount, mounted
    if mounted:
        subprocess.run(["umount", str(mount)], check=True)


def test_a_disk_that_is_really_full_is_one_readable_error(small_disk, tmp_path: Path) -> None:
    mount, mounted = small_disk
    limit = "" if mounted else "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
    code = limit + KILLED
    status, err = run_killed(
        "import sys\nsys.dont_write_bytecode = True\n" + code, mount / "b", "no such step"
    )
    last = err.strip().splitlines()[-1]
    assert status != 0
    assert "cannot write: " in last
    assert ("No space left" if mounted else "File too large") in last
    assert not list(mount.iterdir())
