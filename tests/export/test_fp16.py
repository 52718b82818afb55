"""fp16 bundles: half precision inside one delegate, with limits of their own, and refused where a value overflows."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

from finet_deploy.errors import UsageError
from finet_deploy.export import Bundle, CheckFailed, export, verify_bundle
from finet_deploy.images import Preprocessing, evaluation_inputs, natural_noise
from finet_deploy.verify import Limits
from tests.cli import USAGE, error_line
from tests.export.conftest import TinyNet, well_conditioned

SIZE = 16


def model() -> nn.Module:
    torch.manual_seed(0)
    return well_conditioned(TinyNet())


@pytest.fixture(scope="module")
def inputs() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return evaluation_inputs(torch.cat([natural_noise(SIZE, SIZE, generator) for _ in range(2)]))


@pytest.fixture(scope="module")
def fp16(tmp_path_factory: pytest.TempPathFactory, inputs) -> Bundle:
    out = tmp_path_factory.mktemp("fp16") / "tiny"
    network = model()
    before = copy.deepcopy(network.state_dict())
    bundle = export(network, out, formats=("pte",), dtype="float16", inputs=inputs)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    return bundle


def test_the_file_computes_in_fp16_between_fp32_ends_and_says_what_it_keeps(fp16: Bundle) -> None:
    entry = fp16.artifact("pte")
    assert (entry.dtype, entry.delegates, entry.delegated_share) == ("float16", 1, 1.0)
    assert entry.outside_ops == {"dim_order_ops__to_dim_order_copy_default": 2, "getitem": 1}
    assert any("fp16 arithmetic" in notice for notice in entry.notices)
    assert not any("operators outside" in notice for notice in entry.notices)
    check = fp16.certificate().check("artifact/pte")
    assert check.passed
    # fp32 would be a thousand times nearer, 8 bits a dozen times farther off.
    assert 50 < check.figures["median_sqnr_db"] < 90
    assert check.limits["median_sqnr_db"] == 40
    assert check.figures["judged"] == ["photo_0", "photo_1"]
    assert verify_bundle(fp16).passed


def test_raw_pixels_and_a_chosen_limit_go_with_fp16(tmp_path: Path, inputs) -> None:
    options = {"formats": ("pte",), "dtype": "float16", "inputs": inputs}
    bundle = export(
        model(),
        tmp_path / "raw",
        raw_pixels=True,
        preprocessing=Preprocessing(resize=SIZE, crop=SIZE),
        limits=Limits(fp16_sqnr_db=35.0),
        **options,
    )
    assert bundle.certificate().check("artifact/pte").limits["median_sqnr_db"] == 35
    assert verify_bundle(bundle).check("artifact/pte").limits["median_sqnr_db"] == 35
    with pytest.raises(CheckFailed, match="limit 100 dB"):
        export(model(), tmp_path / "out", limits=Limits(fp16_sqnr_db=100.0), **options)
    assert not (tmp_path / "out").exists()


def test_a_network_whose_values_are_beyond_fp16_is_refused(tmp_path: Path, inputs) -> None:
    network = model()
    with torch.no_grad():
        network.bn.weight.mul_(1e6)
        network.bn.bias.mul_(1e6)
        network.fc.weight.div_(1e6)
    with pytest.raises(CheckFailed, match="artifact/pte"):
        export(network, tmp_path / "out", formats=("pte",), dtype="float16", inputs=inputs)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_fp16_is_a_usage_error(tmp_path: Path, inputs, capsys) -> None:
    for fmt in ("onnx", "ptl"):
        with pytest.raises(UsageError, match=f"no float16 file in format '{fmt}'"):
            export(model(), tmp_path / "out", formats=(fmt,), dtype="float16", inputs=inputs)
    out = ("-o", tmp_path / "out")
    assert "--calibrate is for int8" in error_line(
        capsys, USAGE, "export", "finet_small", "--dtype", "fp16", "--calibrate", "photos", *out
    )
    assert "--min-sqnr is for int8 and fp16" in error_line(
        capsys, USAGE, "export", "finet_small", "--min-sqnr", "30", *out
    )
    assert "no float16 file in format 'onnx'" in error_line(
        capsys, USAGE, "export", "finet_small", "--cifar", "--dtype", "fp16", "--formats", "onnx", "-q", *out
    )
