"""int8 bundles: proved by limits of their own, and a file whose scales are wrong does not get a bundle's name."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from PIL import Image
from torch import Tensor, nn

from finet_deploy.bench.plan import BenchRow, build_job
from finet_deploy.devices.equivalence import golden_limits
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.export import Bundle, CheckFailed, export, read_bundle, verify_bundle
from finet_deploy.export.executorch import to_pte
from finet_deploy.export.executorch_int8 import to_int8_program
from finet_deploy.export.exported import trace_program
from finet_deploy.export.judge import judge_files
from finet_deploy.fuse import fuse
from finet_deploy.images import Preprocessing, natural_noise
from finet_deploy.nn import FBNConv2d
from finet_deploy.passes.standardize import raw_inputs
from finet_deploy.profile.host import HostProfiler
from finet_deploy.profile.measured import PROFILE_SETTINGS, profile_time
from finet_deploy.quantize import Calibration, calibration_of, quantize_network
from finet_deploy.verify import Limits
from tests.bench_fakes import DEVICE, SETTINGS
from tests.cli import USAGE, error_line, run_cli
from tests.device.runner_native import folder_or_skip
from tests.export.conftest import well_conditioned

SIZE = 16


class SmallNet(nn.Module):
    """(1, 3, 16, 16) -> (1, 5): FBN, a depthwise residual block with a gate, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = FBNConv2d(3, 8, 3, stride=2, padding=1, num_groups=3)
        self.conv2 = FBNConv2d(8, 8, 1, num_groups=2)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.squeeze = nn.Conv2d(8, 8, 1)
        self.fc = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv1(x))
        gate = torch.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
        y = torch.relu(self.bn(self.depthwise(torch.relu(self.conv2(x)))))
        return self.fc((x + y * gate).mean((2, 3), keepdim=True).flatten(1))


def model() -> nn.Module:
    torch.manual_seed(0)
    return well_conditioned(SmallNet())


def calibration() -> Calibration:
    generator = torch.Generator().manual_seed(0)
    return calibration_of(torch.cat([natural_noise(SIZE, SIZE, generator) for _ in range(16)]), "noise")


@pytest.fixture(scope="module")
def int8(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    out = tmp_path_factory.mktemp("int8") / "small"
    return export(model(), out, formats=("pte", "onnx"), dtype="int8", calibration=calibration())


def copy_of(bundle: Bundle, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle.path, tmp_path / "copy"))


def put(folder: Path, fmt: str, data: bytes) -> None:
    """Replace a file, and make the manifest agree."""
    (folder / f"model.{fmt}").write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["artifacts"][fmt] |= {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_the_bundle_says_what_is_int8_how_it_was_made_and_what_it_keeps(int8: Bundle) -> None:
    again = read_bundle(int8.path)
    entry = again.manifest.quantization
    assert entry is not None
    assert (entry.calibration_source, entry.calibration_images, entry.held_out_images) == ("noise", 12, 4)
    assert entry.calibration_built_in is False
    assert {layer.path for layer in entry.layers} == {"conv1", "conv2", "depthwise", "squeeze", "fc"}
    assert set(entry.equalization_tried) == {"none", "0.5", "0.75", "1"}
    certificate = again.certificate()
    for fmt in ("pte", "onnx"):
        assert again.artifact(fmt).dtype == "int8"
        check = certificate.check(f"artifact/{fmt}")
        assert check.passed
        assert check.figures["median_sqnr_db"] > check.limits["median_sqnr_db"] == 20
        assert check.figures["judged"] == ["photo_0", "photo_1", "photo_2", "photo_3"]
    assert again.artifact("pte").delegates == 1
    assert again.artifact("pte").fp32_ops == {"sigmoid": 1}
    assert again.artifact("onnx").fp32_ops == {"ReduceMean": 2}
    assert again.artifact("onnx").op_counts["QuantizeLinear"] > 5
    assert verify_bundle(again).passed
    lines = "\n".join(again.summary_lines())
    assert "int8: calibrated on 12 images of noise" in lines
    assert "the layer that loses most is" in lines


def test_weights_of_the_onnx_file_are_int8_with_a_scale_per_channel(int8: Bundle) -> None:
    graph = onnx.load(int8.artifact_path("onnx")).graph
    tensors = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    makers = {output: node for node in graph.node for output in node.output}
    assert len(convolutions) == 4
    for node in convolutions:
        dequantize = makers[node.input[1]]
        weight, scale = (tensors[name] for name in dequantize.input[:2])
        assert weight.dtype == np.int8
        assert scale.shape == (len(weight),)
        assert np.abs(weight.reshape(len(weight), -1)).max(1).min() == 127


def test_operators_of_int8_files_lead_to_every_module_and_hold_every_multiply_add(int8: Bundle) -> None:
    operators = int8.operators()
    assert operators is not None and operators.pte is not None and operators.onnx is not None
    for nodes in (operators.pte.nodes.values(), operators.onnx.nodes.values()):
        working = {node.module: node for node in nodes if node.macs}
        assert set(working) == {"conv1", "conv2", "squeeze", "depthwise", "fc"}
        assert sum(node.macs for node in working.values()) == int8.manifest.macs
        for node in working.values():
            image, weight = node.inputs[:2]
            assert (image.dtype, weight.dtype, node.outputs[0].dtype) == ("int8", "int8", "int8"), node
            assert weight.constant and not image.constant
    rounding = [node for node in operators.onnx.nodes.values() if node.op == "QuantizeLinear"]
    assert {"conv1", "conv2", "squeeze", "depthwise", "fc"} <= {node.module for node in rounding}


def test_a_profile_names_the_operators_that_the_runtimes_make_of_int8_files(
    int8: Bundle, tmp_path: Path
) -> None:
    folder_or_skip()
    (tmp_path / "run").mkdir()
    short = msgspec.structs.replace(PROFILE_SETTINGS, warmup_min_seconds=0.0, timed_min_seconds=0.0)
    profiles = profile_time(int8, device=HostProfiler(), folder=tmp_path / "run", rounds=1, settings=short)
    assert {profile.runtime for profile in profiles} == {"executorch", "onnxruntime"}
    for profile in profiles:
        found = {row.module: row.macs for row in profile.rows if row.macs}
        assert set(found) == {"conv1", "conv2", "squeeze", "depthwise", "fc"}
        assert sum(found.values()) == int8.manifest.macs
        assert any("no share of it is given" in note for note in profile.notes)


def test_swapped_scales_in_the_onnx_file_are_rejected(int8: Bundle, tmp_path: Path) -> None:
    folder = copy_of(int8, tmp_path)
    proto = onnx.load(folder / "model.onnx")
    makers = {output: node for node in proto.graph.node for output in node.output}
    tensors = {item.name: item for item in proto.graph.initializer}
    node = next(node for node in proto.graph.node if node.op_type == "Conv")
    item = tensors[makers[node.input[1]].input[1]]
    scale = numpy_helper.to_array(item).copy()
    low, high = scale.argmin(), scale.argmax()
    scale[[low, high]] = scale[[high, low]]
    item.CopyFrom(numpy_helper.from_array(scale, item.name))
    put(folder, "onnx", proto.SerializeToString())
    again = verify_bundle(read_bundle(folder))
    assert again.check("artifact/pte").passed
    assert again.check("artifact/onnx").passed is False
    assert "further off" in again.check("artifact/onnx").message


def test_swapped_scales_are_rejected_before_a_bundle_of_them_exists(int8: Bundle, tmp_path: Path) -> None:
    deploy = fuse(model())
    program = trace_program(deploy, calibration().images[:1])
    quantized = quantize_network(program, calibration(), min_sqnr_db=20.0)
    wrong, _ = to_int8_program(quantized)
    scales = [name for name, value in wrong.state_dict.items() if "scale" in name and value.ndim == 1]
    scales += [name for name, value in wrong.constants.items() if "scale" in name and value.ndim == 1]
    values = {**wrong.state_dict, **wrong.constants}
    assert len(scales) == 5
    first = values[scales[0]]
    low, high = int(first.argmin()), int(first.argmax())
    first[[low, high]] = first[[high, low]].clone()
    path = tmp_path / "wrong.pte"
    path.write_bytes(to_pte(wrong).data)
    certificate = int8.certificate()
    made = int8.golden()
    unmade = [check for check in certificate.checks if not check.name.startswith("artifact/")]
    fresh = msgspec.structs.replace(certificate, checks=tuple(unmade))
    (check,) = judge_files({"pte": path}, made, fresh, Limits(), dtypes={"pte": "int8"})
    assert check.passed is False
    (check,) = judge_files({"pte": int8.artifact_path("pte")}, made, fresh, Limits(), dtypes={"pte": "int8"})
    assert check.passed is True


def test_an_fp32_limit_is_not_softened_by_saying_int8(int8: Bundle, tmp_path: Path) -> None:
    folder = copy_of(int8, tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["artifacts"]["pte"]["dtype"] = "float32"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert verify_bundle(read_bundle(folder)).check("artifact/pte").passed is False


def test_a_limit_that_is_not_met_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed, match="limit 90 dB"):
        export(
            model(),
            tmp_path / "out",
            formats=("onnx",),
            dtype="int8",
            calibration=calibration(),
            limits=Limits(int8_sqnr_db=90.0),
        )
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_int8_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no int8 file in format 'ptl'"):
        export(model(), tmp_path / "out", formats=("ptl",), dtype="int8", calibration=calibration())
    with pytest.raises(UsageError, match="unknown precision 'int4'"):
        export(model(), tmp_path / "out", dtype="int4")
    with pytest.raises(UsageError, match="train mode"):
        export(model().train(), tmp_path / "out", formats=("pte",), dtype="int8", calibration=calibration())
    with pytest.raises(UsageError, match="nothing says what"):
        export(model(), tmp_path / "out", formats=("pte",), dtype="int8")


def test_rows_of_two_precisions_share_no_table_and_hold_their_own_limits(
    int8: Bundle, tmp_path: Path
) -> None:
    plain = export(model(), tmp_path / "fp32", formats=("onnx",), inputs=_inputs(int8))
    rows = [BenchRow(plain.path, "a"), BenchRow(int8.path, "b")]
    options = {"device": DEVICE, "settings": SETTINGS, "threads": 1, "folder": tmp_path}
    with pytest.raises(UsageError, match="precisions must not share a table"):
        build_job(rows, runtimes=["onnxruntime"], **options)
    (row, *_) = build_job(rows[1:], runtimes=["onnxruntime"], **options).rows
    check = int8.certificate().check("artifact/onnx")
    errors = {found.name: found.relative_error for found in check.inputs}
    assert row.artifact.dtype == "int8"
    assert row.golden.output_limits["photo_0"] == pytest.approx(2 * errors["photo_0"])
    on_phone = golden_limits(row, int8.path)
    assert set(on_phone) == set(errors)
    assert all(on_phone[name] == pytest.approx(2 * errors[name]) for name in errors)


def _inputs(bundle: Bundle) -> dict[str, Tensor]:
    return {name: torch.from_numpy(x.copy()) for name, x in bundle.golden().inputs.items()}


def test_a_certificate_without_the_file_gives_no_limits(int8: Bundle) -> None:
    from finet_deploy.verify import artifact_limits

    with pytest.raises(FinetDeployError, match="no figures of the int8"):
        artifact_limits("ptl", "int8", int8.certificate(), ["photo_0"])


def test_raw_pixels_and_passes_make_the_same_int8_network_whatever_the_core(
    int8: Bundle, tmp_path: Path
) -> None:
    """Pixels of the pictures that the other bundle standardizes: the same truth, ranges of other values."""
    preprocessing = Preprocessing(resize=SIZE, crop=SIZE)
    raw = export(
        model(),
        tmp_path / "raw",
        formats=("pte", "onnx"),
        dtype="int8",
        calibration=calibration(),
        raw_pixels=True,
        core="cortex-a53",
        preprocessing=preprocessing,
    )
    assert raw.manifest.preprocessing is not None
    assert raw.manifest.preprocessing.std == (1 / 255,) * 3
    entry, standardized = raw.manifest.quantization, int8.manifest.quantization
    assert entry is not None
    assert standardized is not None
    pixels = raw_inputs({"ranges": calibration().images}, preprocessing)["ranges"]
    assert entry.calibration_sha256 == hashlib.sha256(pixels.numpy().tobytes()).hexdigest()
    golden, other = raw.golden(), int8.golden()
    assert float(golden.inputs["photo_0"].max()) > 128
    for fmt in ("pte", "onnx"):
        names = {item.name for item in raw.artifact(fmt).passes or ()}
        assert "fold-standardization" in names
        assert not names & {"pad-channels", "split-pixels"}
        assert raw.artifact(fmt).core == "cortex-a53"
        assert raw.certificate().check(f"artifact/{fmt}").passed
    for name, y in golden.outputs.items():
        if name.startswith("photo"):
            assert np.allclose(y, other.outputs[name], rtol=1e-4, atol=1e-5)
    assert verify_bundle(raw).passed


@pytest.mark.parametrize(("core", "padded"), [("cortex-a76", True), ("cortex-a53", False)])
def test_shapes_that_were_asked_for_are_chosen_for_the_core(tmp_path: Path, core: str, padded: bool) -> None:
    """20 channels fill tiles of 2: on the larger core 24 in tiles of 8 are cheaper."""
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 20, 3, padding=1), nn.ReLU(), nn.Conv2d(20, 20, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(20, 5),
    ).eval()  # fmt: skip
    bundle = export(
        network,
        tmp_path / "out",
        formats=("onnx",),
        dtype="int8",
        calibration=calibration(),
        passes="default,pad-channels",
        core=core,
    )
    entry = bundle.artifact("onnx")
    assert ("pad-channels" in {item.name for item in entry.passes or ()}) is padded
    assert bundle.manifest.quantization is not None
    assert entry.op_counts["QuantizeLinear"] > 3


def test_the_command_line_calibrates_on_a_folder_and_states_the_limit_that_was_chosen(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator = torch.Generator().manual_seed(0)
    (tmp_path / "mine").mkdir()
    for i in range(8):
        pixels = (natural_noise(32, 32, generator)[0] * 50 + 128).clamp(0, 255).byte()
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / "mine" / f"{i}.png")
    network = ("finet_small", "--cifar", "--num-classes", "10", "--formats", "onnx")
    options = ("--dtype", "int8", "--calibrate", tmp_path / "mine", "--min-sqnr", "15")
    status, out, err = run_cli(capsys, "export", *network, *options, "-o", tmp_path / "b")
    assert status == 0, err
    assert "calibrate on 4 images of mine, 4 held out" in err
    assert "int8: calibrated on 4 images of mine" in out
    bundle = read_bundle(tmp_path / "b")
    assert bundle.certificate().check("artifact/onnx").limits["median_sqnr_db"] == 15
    assert "--calibrate is for int8" in error_line(
        capsys, USAGE, "export", *network, "--calibrate", "photos", "-o", tmp_path / "c"
    )


class Clamped(nn.Module):
    """Channels of very different sizes behind a clamp, which forbids to equalize them, read by two layers in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu_(self.second(nn.functional.hardtanh(self.first(x), -1e6, 1e6)))
        return self.head(torch.relu_(self.third(x)).mean((2, 3), keepdim=True).flatten(1))


def test_what_hurts_stays_in_fp32_in_both_files_and_is_announced(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = Clamped().eval()
    with torch.no_grad():
        network.first.weight[:4] *= 1000
        network.first.bias[:4] *= 1000
        network.second.weight[:, :4] *= 1e-5
    bundle = export(
        network,
        tmp_path / "out",
        formats=("pte", "onnx"),
        dtype="int8",
        calibration=calibration(),
        limits=Limits(int8_sqnr_db=32.0),
    )
    assert bundle.manifest.quantization is not None
    kept = bundle.manifest.quantization.fp32_layers
    assert "first" in kept
    for fmt in ("pte", "onnx"):
        assert any(notice.startswith("mixed precision: first") for notice in bundle.artifact(fmt).notices)
        assert bundle.artifact(fmt).fp32_ops
        assert bundle.certificate().check(f"artifact/{fmt}").figures["median_sqnr_db"] > 32
    graph = onnx.load(bundle.artifact_path("onnx")).graph
    names = {item.name: numpy_helper.to_array(item).dtype for item in graph.initializer}
    first = next(node for node in graph.node if node.op_type == "Conv")
    assert names[first.input[1]] == np.float32
