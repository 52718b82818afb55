"""Reading bundles: whatever was done to the folder is named, and no damaged file reaches a runtime unchecked."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from safetensors.numpy import load_file, save_file

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.export import Bundle, read_bundle, verify_bundle

Copy = Callable[[], Path]


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def rehash(folder: Path, fmt: str) -> None:
    """Make the manifest agree with a file that was changed."""
    data = (folder / f"model.{fmt}").read_bytes()

    def change(manifest: dict[str, Any]) -> None:
        manifest["artifacts"][fmt] |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}

    edit_manifest(folder, change)


def test_a_bundle_reads_back_as_it_was_written(pristine: Bundle) -> None:
    again = read_bundle(pristine.path)
    assert again.manifest == pristine.manifest
    assert again.formats == ("pte", "onnx", "ptl")
    assert again.certificate().passed
    golden = again.golden()
    assert list(golden.inputs) == ["noise_0", "noise_1", "noise_2"]
    assert {y.dtype for y in golden.outputs.values()} == {np.dtype(np.float64)}


def test_the_folder_holds_what_the_manifest_lists_and_nothing_else(pristine: Bundle) -> None:
    expected = {"manifest.json", "certificate.json", "certificate.xml", "golden.safetensors"}
    assert {item.name for item in pristine.path.iterdir()} == expected | {
        "model.pte",
        "model.onnx",
        "model.ptl",
    }


def test_verify_bundle_passes_on_an_untouched_bundle(pristine: Bundle) -> None:
    certificate = verify_bundle(pristine.path)
    assert certificate.passed
    assert certificate.expected == ("bundle/certificate", "artifact/pte", "artifact/onnx", "artifact/ptl")


def test_reading_a_bundle_does_not_import_torch(pristine: Bundle) -> None:
    code = f"import sys; from finet_deploy.export import read_bundle; read_bundle({str(pristine.path)!r}); "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2]).returncode == 0


@pytest.mark.parametrize(
    "file",
    ["model.pte", "model.onnx", "model.ptl", "golden.safetensors", "certificate.json", "certificate.xml"],
)
def test_a_flipped_byte_is_named(bundle_copy: Copy, file: str) -> None:
    path = bundle_copy() / file
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x01
    path.write_bytes(data)
    with pytest.raises(FinetDeployError, match=f"SHA-256.*{file}"):
        read_bundle(path.parent)


@pytest.mark.parametrize("file", ["model.pte", "golden.safetensors", "certificate.json", "certificate.xml"])
def test_a_missing_file_is_named(bundle_copy: Copy, file: str) -> None:
    folder = bundle_copy()
    (folder / file).unlink()
    with pytest.raises(FinetDeployError, match=f"missing.*{file}"):
        read_bundle(folder)


def test_a_truncated_file_is_named_with_its_size(bundle_copy: Copy) -> None:
    path = bundle_copy() / "model.onnx"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(FinetDeployError, match=r"has 100 bytes where the manifest says.*model\.onnx"):
        read_bundle(path.parent)


@pytest.mark.parametrize(
    "file", ["../model.pte", "/etc/hostname", "a/../../model.pte", "", ".", "..\\model.pte"]
)
def test_a_path_that_leaves_the_folder_is_refused(bundle_copy: Copy, file: str) -> None:
    folder = bundle_copy()
    (folder.parent / "model.pte").write_bytes((folder / "model.pte").read_bytes())  # right bytes, wrong place
    edit_manifest(folder, lambda manifest: manifest["artifacts"]["pte"].update(file=file))
    with pytest.raises(FinetDeployError, match=r"path|manifest"):
        read_bundle(folder)


@pytest.mark.parametrize("file", ["model.pte", "golden.safetensors", "manifest.json"])
def test_a_link_out_of_the_folder_is_refused(bundle_copy: Copy, file: str) -> None:
    path = bundle_copy() / file
    outside = path.parent.parent / file
    path.rename(outside)
    path.symlink_to(outside)
    with pytest.raises(FinetDeployError, match="leaves its folder"):
        read_bundle(path.parent)


def test_a_folder_without_manifest_a_file_and_nothing_are_no_bundles(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path, found in (
        (tmp_path, "no manifest"),
        (tmp_path / "file", "is a file"),
        (tmp_path / "no", "no such"),
    ):
        with pytest.raises(UsageError, match=found):
            read_bundle(path)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"schema_version": 1}', '{"schema_version": "1"}', "[" * 100_000, "\xff"]
)
def test_a_damaged_manifest_is_one_readable_error(bundle_copy: Copy, text: str) -> None:
    folder = bundle_copy()
    (folder / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(FinetDeployError, match=r"not a bundle's manifest.*manifest\.json"):
        read_bundle(folder)


def test_a_huge_manifest_is_not_read(bundle_copy: Copy) -> None:
    folder = bundle_copy()
    with (folder / "manifest.json").open("r+b") as stream:
        stream.truncate(5 << 20)
    with pytest.raises(FinetDeployError, match="larger than"):
        read_bundle(folder)


def test_another_schema_version_is_refused_by_number(bundle_copy: Copy) -> None:
    folder = bundle_copy()
    edit_manifest(folder, lambda manifest: manifest.update(schema_version=3))
    with pytest.raises(FinetDeployError, match="schema_version 3, this program reads 1 and 2"):
        read_bundle(folder)


def test_an_unknown_field_is_refused(bundle_copy: Copy) -> None:
    folder = bundle_copy()
    edit_manifest(folder, lambda manifest: manifest.update(run_this="x"))
    with pytest.raises(FinetDeployError, match="run_this"):
        read_bundle(folder)


def test_a_manifest_that_claims_another_verdict_is_refused(bundle_copy: Copy) -> None:
    folder = bundle_copy()
    edit_manifest(folder, lambda manifest: manifest["certificate"].update(passed=False))
    with pytest.raises(FinetDeployError, match="disagree"):
        read_bundle(folder)


@pytest.mark.parametrize("damage", ["missing", "shape", "dtype", "extra"])
def test_golden_tensors_must_be_those_of_the_manifest(bundle_copy: Copy, damage: str) -> None:
    folder = bundle_copy()
    path = folder / "golden.safetensors"
    tensors = load_file(path)
    if damage == "missing":
        tensors["input.other"] = tensors.pop("input.noise_0")
    elif damage == "extra":
        tensors["input.other"] = tensors["input.noise_0"]
    elif damage == "shape":
        tensors["input.noise_0"] = tensors["input.noise_0"][:, :, :8].copy()
    else:
        tensors["output.noise_0"] = tensors["output.noise_0"].astype(np.float32)
    save_file(tensors, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    edit_manifest(folder, lambda manifest: manifest["golden"].update(sha256=digest))
    with pytest.raises(FinetDeployError, match=r"golden\.safetensors"):
        read_bundle(folder)


def damage_pte(path: Path) -> None:
    """Negate the largest-magnitude float of the file's constant data, which follows the program."""
    data = bytearray(path.read_bytes())
    tail = np.frombuffer(data, dtype="<f4", offset=len(data) // 2 & ~3).copy()
    tail[~np.isfinite(tail) | (np.abs(tail) > 10) | (np.abs(tail) < 1e-3)] = 0
    index = (len(data) // 2 & ~3) + 4 * int(np.abs(tail).argmax())
    data[index + 3] ^= 0x80
    path.write_bytes(data)


def damage_onnx(path: Path) -> None:
    model = onnx.load(path)
    weight = max(model.graph.initializer, key=lambda tensor: np.prod(tensor.dims))
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] += 0.01
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    onnx.save(model, path)


@pytest.mark.parametrize(("fmt", "damage"), [("pte", damage_pte), ("onnx", damage_onnx)])
def test_one_changed_weight_under_a_right_hash_is_caught(
    bundle_copy: Copy, fmt: str, damage: Callable[[Path], None]
) -> None:
    folder = bundle_copy()
    damage(folder / f"model.{fmt}")
    rehash(folder, fmt)
    certificate = verify_bundle(folder)
    assert not certificate.passed
    assert [check.name for check in certificate.failures] == [f"artifact/{fmt}"]


def test_a_foreign_file_under_a_right_hash_is_caught(bundle_copy: Copy) -> None:
    folder = bundle_copy()
    (folder / "model.ptl").write_bytes(b"PK not an archive")
    rehash(folder, "ptl")
    certificate = verify_bundle(folder)
    assert certificate.check("artifact/ptl").passed is False
    assert "torch_mobile cannot load this file" in certificate.check("artifact/ptl").message
    assert certificate.check("artifact/pte").passed is True


def test_a_runtime_that_is_not_installed_is_never_passed(
    pristine: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    import finet_deploy.runtimes as runtimes

    missing = {**runtimes.available_runtimes(), "executorch": None}
    monkeypatch.setattr(runtimes, "available_runtimes", lambda: missing)
    certificate = verify_bundle(pristine)
    assert not certificate.passed
    check = certificate.check("artifact/pte")
    assert check.passed is None
    assert "pip install 'finet-deploy[executorch]'" in (check.reason or "")


def test_asking_for_a_format_that_is_not_there_lists_those_that_are(pristine: Bundle) -> None:
    with pytest.raises(UsageError, match="use pte, onnx, ptl"):
        pristine.artifact_path("tflite")


def test_a_bundle_may_be_reached_through_a_link(pristine: Bundle, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(pristine.path)
    assert read_bundle(tmp_path / "link").manifest == pristine.manifest
