"""Every check of a guard fails on what it is for, and the certificate's word is never enough."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from finet_deploy.export import read_bundle
from finet_deploy.files import sha256_file
from finet_deploy.guard import Policy, guard_bundle, plan_checks
from finet_deploy.verify import Check
from finet_deploy.verify.certificate import REQUIRED
from tests.cli import USAGE, error_line, run_cli
from tests.device.runner_native import shared_tiny

Json = dict[str, Any]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_tiny(tmp_path_factory)


@pytest.fixture
def copy(tiny: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny, tmp_path / "tiny"))


def edit(folder: Path, change: Callable[[Json], object], file: str = "manifest.json") -> None:
    """Change a JSON file of the bundle, and make the manifest agree."""
    data = json.loads((folder / file).read_text())
    change(data)
    (folder / file).write_text(json.dumps(data))
    if file != "manifest.json":
        rehash(folder, file)


def rehash(folder: Path, file: str) -> None:
    digest = sha256_file(folder / file)
    size = (folder / file).stat().st_size

    def change(manifest: Json) -> None:
        for entry in (
            *manifest["artifacts"].values(),
            manifest["golden"],
            manifest["certificate"],
            manifest["operators"],
        ):
            if entry["file"] == file:
                entry["sha256"] = digest
                entry.update({"bytes": size} if "bytes" in entry else {})

    edit(folder, change)


def made(folder: Path, name: str, policy: Policy | None = None) -> Check:
    (item,) = [item for item in plan_checks(folder, policy) if item.name == name]
    return item.run()


def failed(folder: Path, policy: Policy | None = None) -> list[str]:
    """The checks that fail, but for those that run a file."""
    plan = [item for item in plan_checks(folder, policy) if not item.name.startswith("artifact/")]
    return [item.name for item in plan if not item.run().acceptable]


def test_a_whole_bundle_passes_in_all_three_formats_and_every_file_of_it_is_looked_at(tiny: Path) -> None:
    certificate = guard_bundle(tiny)
    assert certificate.passed, [(check.name, check.message) for check in certificate.failures]
    names = {check.name for check in certificate.checks}
    assert {f"{kind}/{fmt}" for kind in ("graph", "artifact") for fmt in ("pte", "onnx", "ptl")} < names
    assert "delegation/pte" in names
    assert {f"hash/{path.name}" for path in tiny.iterdir()} - {"hash/manifest.json"} < names
    assert {item.file for item in plan_checks(tiny)} <= {path.name for path in tiny.iterdir()}
    quick = {item.name.partition("/")[0] for item in plan_checks(tiny, Policy(quick=True))}
    assert quick == {"manifest", "hash", "files", "certificate"}


def test_what_is_required_of_a_certificate_is_what_an_export_makes(tiny: Path) -> None:
    made = [check.name for check in read_bundle(tiny).certificate().checks]
    assert sorted(name for name in made if not name.startswith(("artifact/", "pass/"))) == sorted(REQUIRED)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("algebra/fp64", lambda c: c["limits"].update(max_error=0.5)),
        ("algebra/fp64", lambda c: c["inputs"][0].update(relative_error=1e-3)),
        ("fp32/no_worse", lambda c: c["inputs"][0].update(top1="differs")),
        ("fp32/no_worse", lambda c: c["figures"].update(problems=["photo_0: no output"])),
        ("fp32/no_worse", lambda c: c.update(inputs=[])),
        ("artifact/onnx", lambda c: c["limits"].update(max_error=0.5)),
        ("sensitivity/inputs", lambda c: c["figures"].update(smallest_distance=1e-6)),
        ("sensitivity/zeroed_kernel", lambda c: c["figures"].update(error=1e-7)),
        ("conditioning/fp32", lambda c: c["figures"].update(ill_conditioned=["photo_0"])),
        ("normalization/left", lambda c: c["figures"].update(left=3)),
    ],
)
def test_a_certificate_that_says_passed_is_judged_by_its_own_figures(
    copy: Path, name: str, change: Callable[[Json], None]
) -> None:
    edit(copy, lambda data: change(next(c for c in data["checks"] if c["name"] == name)), "certificate.json")
    assert read_bundle(copy).certificate().passed
    assert failed(copy) == [f"certificate/{name}"]
    assert failed(copy, Policy(quick=True)) == [f"certificate/{name}"]


def test_a_certificate_without_a_check_that_every_export_makes_is_not_of_an_export(copy: Path) -> None:
    def drop(data: Json) -> None:
        data["checks"] = [check for check in data["checks"] if check["name"] != "sensitivity/flipped_mean"]
        data["expected"].remove("sensitivity/flipped_mean")

    edit(copy, drop, "certificate.json")
    assert read_bundle(copy).certificate().passed
    assert failed(copy) == ["certificate/complete"]
    assert "sensitivity/flipped_mean" in made(copy, "certificate/complete").message


def test_an_unfused_bundle_is_refused_unless_it_is_meant(copy: Path) -> None:
    edit(copy, lambda manifest: manifest.update(fused=False))
    assert failed(copy) == ["form/fused"]
    assert failed(copy, Policy(allow_unfused=True)) == []


def test_delegates_are_counted_in_the_file(copy: Path) -> None:
    edit(copy, lambda manifest: manifest["artifacts"]["pte"].update(delegates=2))
    assert failed(copy) == ["delegation/pte"]
    assert "1 delegates in the file, 2 in the manifest" in made(copy, "delegation/pte").message


def test_a_share_below_what_is_demanded_names_what_is_outside(copy: Path) -> None:
    edit(
        copy,
        lambda manifest: manifest["artifacts"]["pte"].update(
            delegated_share=0.5, outside_ops={"aten_cumsum": 3}
        ),
    )
    assert failed(copy, Policy(min_delegated_share=0.4)) == []
    assert failed(copy, Policy(min_delegated_share=0.9)) == ["delegation/pte"]
    assert "aten_cumsum x 3" in made(copy, "delegation/pte", Policy(min_delegated_share=0.9)).message


def test_what_xnnpack_gets_is_counted_in_the_file(copy: Path) -> None:
    edit(copy, lambda data: data["pte"]["delegates"][0].pop(), "operators.json")
    assert failed(copy) == ["graph/pte"]
    assert "nodes in the file" in made(copy, "graph/pte").message


def test_operators_of_the_lite_interpreter_are_read_out_of_the_file(copy: Path) -> None:
    edit(copy, lambda manifest: manifest["artifacts"]["ptl"].update(operators=["aten::relu"]))
    assert failed(copy) == ["graph/ptl"]
    assert "was not exported" in made(copy, "graph/ptl").message


def change_onnx(folder: Path, change: Callable[[onnx.ModelProto], None]) -> None:
    proto = onnx.load(folder / "model.onnx")
    change(proto)
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    rehash(folder, "model.onnx")


def _outside(proto: onnx.ModelProto) -> None:
    proto.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL


def _norm(proto: onnx.ModelProto) -> None:
    proto.graph.node.insert(1, onnx.helper.make_node("BatchNormalization", ["x"], ["y"], name="new"))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_outside, "weights in another file"),
        (_norm, "1 normalizations in a file that the manifest calls fused"),
        (_norm, "operator BatchNormalization (new) after module 0 is not one that was exported"),
        (lambda proto: proto.graph.node.pop(), "is gone"),
        (lambda proto: setattr(proto.graph.output[0], "name", "other"), "output [('other', (1, 10))]"),
    ],
)
def test_the_graph_of_an_onnx_file_is_the_one_that_was_exported(
    copy: Path, change: Callable[[onnx.ModelProto], None], words: str
) -> None:
    change_onnx(copy, change)
    assert failed(copy) == ["graph/onnx"]
    assert words in made(copy, "graph/onnx").message


def test_operators_are_counted_in_the_file_where_nothing_leads_to_their_modules(copy: Path) -> None:
    """A bundle of version 1 has no operators.json."""
    (copy / "operators.json").unlink()
    edit(copy, lambda manifest: manifest.update(schema_version=1, operators=None))
    assert failed(copy) == []
    edit(copy, lambda manifest: manifest["artifacts"]["onnx"]["op_counts"].update(Relu=7))
    assert failed(copy) == ["graph/onnx"]
    assert "2 Relu in the file, 7 in the manifest" in made(copy, "graph/onnx").message


def test_no_file_is_run_whose_hash_is_wrong(copy: Path) -> None:
    (copy / "model.pte").write_bytes(b"not a program")
    check = made(copy, "artifact/pte")
    assert check.passed is None
    assert (check.reason or "").startswith("not run: file has 13 bytes")
    assert not check.acceptable


def test_golden_outputs_that_are_all_alike_prove_nothing(copy: Path) -> None:
    tensors = load_file(copy / "golden.safetensors")
    one = tensors["output.noise_0"]
    tensors |= {key: one + 1e-9 * i for i, key in enumerate(tensors) if key.startswith("output.")}
    save_file(
        {key: np.ascontiguousarray(value) for key, value in tensors.items()}, copy / "golden.safetensors"
    )
    rehash(copy, "golden.safetensors")
    assert failed(copy) == ["golden/distinct"]


def test_a_file_that_nobody_lists_and_one_that_is_gone_are_named(copy: Path) -> None:
    (copy / "model.onnx.data").write_bytes(b"x")
    assert failed(copy) == ["files/unlisted"]
    assert "model.onnx.data" in made(copy, "files/unlisted").message
    (copy / "model.onnx.data").unlink()
    (copy / "certificate.xml").unlink()
    assert failed(copy) == ["hash/certificate.xml"]


def test_a_damaged_certificate_or_manifest_leaves_the_other_checks_to_be_made(copy: Path) -> None:
    (copy / "certificate.json").write_text("{")
    found = failed(copy)
    assert {"hash/certificate.json", "certificate/complete"} <= set(found)
    assert "graph/onnx" not in found
    (copy / "manifest.json").write_text("{")
    assert failed(copy) == ["manifest"]


def test_the_command_checks_the_bundles_that_files_lie_in_each_once(copy: Path, capsys, tmp_path) -> None:
    files = [copy / "model.onnx", copy / "golden.safetensors"]
    status, out, _ = run_cli(capsys, "guard", "--quick", "--files", "--json", "-q", *files)
    document = json.loads(out)
    assert status == 0
    assert [item["path"] for item in document["bundles"]] == [str(copy)]
    assert document["passed"] is True
    (copy / "model.onnx").write_bytes(b"x")
    status, out, _ = run_cli(
        capsys, "guard", "--quick", "--sarif", tmp_path / "s.sarif", "-q", str(tmp_path / "ti*")
    )
    assert status == 1
    assert "hash/model.onnx" in out
    results = json.loads((tmp_path / "s.sarif").read_text())["runs"][0]["results"]
    assert [result["ruleId"] for result in results] == ["finet/hash"]
    (tmp_path / "alone").write_text("x")
    assert "in no bundle" in error_line(capsys, USAGE, "guard", "--files", tmp_path / "alone")
    assert "no bundle is there" in error_line(capsys, USAGE, "guard", tmp_path / "no*")
    assert "no bundle is named" in error_line(capsys, USAGE, "guard")


def test_verify_writes_sarif_and_junit_of_a_bundle_too_damaged_to_be_run(
    copy: Path, capsys, tmp_path
) -> None:
    (copy / "model.onnx").write_bytes(b"x")
    line = error_line(
        capsys,
        1,
        "verify",
        copy,
        "--sarif",
        tmp_path / "s.sarif",
        "--junit",
        tmp_path / "j.xml",
        "-o",
        tmp_path / "c",
    )
    assert "model.onnx" in line
    (result,) = json.loads((tmp_path / "s.sarif").read_text())["runs"][0]["results"]
    assert result["ruleId"] == "finet/bundle"
    assert "model.onnx" in result["message"]["text"]
    assert "<failure" in (tmp_path / "j.xml").read_text()
    assert json.loads((tmp_path / "c").read_text())["passed"] is False
