"""Which files the app's runtimes load, after what is in the files: real ones, and real ones made too new or foreign."""

from __future__ import annotations

import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finet_deploy.errors import FinetDeployError
from finet_deploy.export import export
from finet_deploy.export.torch_mobile import to_ptl
from finet_deploy.runtimes.android import known_runtimes, unloadable, unloadable_file
from finet_deploy.runtimes.needs import Needs, read_needs
from tests.helpers import tiny_network

INPUT = torch.zeros(1, 3, 16, 16)
SCRATCH = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


class Unusual(torch.nn.Module):
    """Has an operator that came after PyTorch Mobile's last release."""

    def __init__(self):
        super().__init__()
        self.usual = tiny_network()

    def forward(self, x):
        y = self.usual(x)
        return y + torch.linalg.vecdot(y, y).unsqueeze(1)


@pytest.fixture(scope="module")
def ptl(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("loads") / "model.ptl"
    path.write_bytes(to_ptl(tiny_network(), INPUT).data)
    return path


@pytest.fixture(scope="module")
def pte(tmp_path_factory) -> Path:
    pytest.importorskip("executorch")
    from finet_deploy.export.executorch import to_pte
    from finet_deploy.export.exported import trace_program

    path = tmp_path_factory.mktemp("loads") / "model.pte"
    path.write_bytes(to_pte(trace_program(tiny_network(), INPUT)).data)
    return path


@pytest.fixture(scope="module")
def portable(tmp_path_factory) -> Path:
    """A `.pte` whose operators are not delegated."""
    exir = pytest.importorskip("executorch.exir")
    program = torch.export.export(torch.nn.Sequential(torch.nn.Softmax(1), torch.nn.ReLU()), (INPUT,))
    path = tmp_path_factory.mktemp("loads") / "portable.pte"
    path.write_bytes(bytes(exir.to_edge(program).to_executorch().buffer))
    return path


def changed(path: Path, to: Path, old: bytes, new: bytes) -> Path:
    """The same file with other bytes in one place."""
    data = path.read_bytes()
    assert len(old) == len(new) and old in data
    to.write_bytes(data.replace(old, new))
    return to


def with_bytecode(path: Path, to: Path, change) -> Path:
    """The same `.ptl` with another `bytecode.pkl`."""
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(to, "w") as target:
        for info in source.infolist():
            data = source.read(info)
            target.writestr(info, change(data) if info.filename.endswith("/bytecode.pkl") else data)
    return to


class TestPyTorchMobile:
    def test_what_our_exporter_writes_is_loaded_and_read_as_torch_reads_it(self, ptl):
        from torch.jit.mobile import _get_model_bytecode_version, _get_model_ops_and_info

        needs = read_needs(ptl, "ptl")
        assert needs.bytecode_version == _get_model_bytecode_version(str(ptl))
        assert set(needs.operators) == set(_get_model_ops_and_info(str(ptl)))
        assert needs.operators["aten::_convolution"] == 13
        assert unloadable_file(ptl, "ptl") == []

    @pytest.mark.parametrize("version", [3, 10])
    def test_another_bytecode_version_is_told(self, ptl, tmp_path, version):
        """Version 8 stands in the first bytes of the pickle: protocol, begin of a tuple, a number of one byte."""
        low, high = known_runtimes()["ptl"].bytecode
        new = with_bytecode(
            ptl, tmp_path / "new.ptl", lambda data: data.replace(b"K\x08", bytes([75, version]), 1)
        )
        assert read_needs(new, "ptl").bytecode_version == version
        (problem,) = unloadable_file(new, "ptl")
        assert f"bytecode version {version}" in problem and f"loads {low} to {high}" in problem

    def test_an_operator_that_came_later_is_told_and_the_export_says_so(self, tmp_path):
        generator = torch.Generator().manual_seed(0)
        names = ("noise_0", "photo_0", "photo_1")
        inputs = {name: torch.randn(1, 3, 32, 32, generator=generator) for name in names}
        bundle = export(
            Unusual().eval(),
            tmp_path / "b",
            formats=("ptl",),
            inputs=inputs,
            name="unusual",
            fuse_model=False,
        )
        notices = bundle.manifest.artifacts["ptl"].notices
        (told,) = [notice for notice in notices if "Android app cannot load" in notice]
        assert "operator aten::linalg_vecdot" in told and "pytorch_android_lite" in told
        assert any("Android app cannot load" in line for line in bundle.summary_lines())

    def test_more_arguments_than_the_operator_had_are_told(self, ptl, tmp_path):
        assert read_needs(ptl, "ptl").operators["aten::relu"] == 1
        new = with_bytecode(ptl, tmp_path / "new.ptl", lambda data: add_argument(data, b"aten::relu"))
        assert read_needs(new, "ptl").operators["aten::relu"] == 2
        (problem,) = unloadable_file(new, "ptl")
        assert "operator aten::relu with 2 arguments" in problem

    def test_nothing_in_a_file_is_run(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return (Path.touch, (tmp_path / "run",))

        with zipfile.ZipFile(tmp_path / "evil.ptl", "w") as archive:
            archive.writestr("archive/bytecode.pkl", pickle.dumps((8, ("f", (("constants", (Evil(),)),)))))
        assert read_needs(tmp_path / "evil.ptl", "ptl") == Needs(bytecode_version=8)
        assert not (tmp_path / "run").exists()

    @SCRATCH
    @given(st.binary(max_size=200))
    def test_any_bytecode_is_read_or_refused(self, tmp_path, data):
        with zipfile.ZipFile(tmp_path / "any.ptl", "w") as archive:
            archive.writestr("archive/bytecode.pkl", data)
        reads_or_refuses(tmp_path / "any.ptl", "ptl")


def add_argument(data: bytes, name: bytes) -> bytes:
    """The number behind the operator's name and overload, one larger."""
    at = data.index(b"K\x01", data.index(name))
    return data[: at + 1] + b"\x02" + data[at + 2 :]


class TestExecuTorch:
    def test_what_our_exporter_writes_is_loaded(self, pte):
        needs = read_needs(pte, "pte")
        assert needs.backends == ("XnnpackBackend",)
        assert needs.identifiers[:2] == ("ET12", "eh00") and {"XH00", "XN01"} <= set(needs.identifiers)
        assert unloadable_file(pte, "pte") == []

    def test_operators_outside_of_delegates_are_found(self, portable):
        assert {"aten::_softmax.out", "aten::relu.out"} <= set(read_needs(portable, "pte").operators)
        assert unloadable_file(portable, "pte") == []

    @pytest.mark.parametrize(
        ("old", "new", "told"),
        [
            (b"ET12", b"ET13", "format 'ET13'"),
            (b"XN01", b"XN09", "format 'XN09'"),
            (b"XnnpackBackend", b"QnnpackBackend", "a delegate of QnnpackBackend"),
        ],
    )
    def test_another_schema_or_delegate_is_told(self, pte, tmp_path, old, new, told):
        (problem,) = unloadable_file(changed(pte, tmp_path / "new.pte", old, new), "pte")
        assert told in problem and "executorch-android" in problem

    def test_an_unknown_operator_is_told(self, portable, tmp_path):
        new = changed(portable, tmp_path / "new.pte", b"aten::relu", b"aten::relx")
        (problem,) = unloadable_file(new, "pte")
        assert "operator aten::relx.out, which executorch-android" in problem

    def test_operators_of_views_are_not_foreign(self):
        """They are in every network with a reshape, under a prefix of their own."""
        assert unloadable("pte", operators=["executorch_prim::et_view.default"]) == []

    @SCRATCH
    @given(st.integers(0, 1 << 40), st.binary(min_size=1, max_size=8))
    def test_a_damaged_file_is_read_or_refused(self, portable, tmp_path, at, new):
        data = bytearray(portable.read_bytes())
        at %= len(data)
        data[at : at + len(new)] = new
        (tmp_path / "damaged.pte").write_bytes(data)
        reads_or_refuses(tmp_path / "damaged.pte", "pte")

    @SCRATCH
    @given(st.binary(max_size=64))
    def test_any_bytes_are_read_or_refused(self, tmp_path, data):
        (tmp_path / "any.pte").write_bytes(struct.pack("<I4s", 8, b"ET12") + data)
        reads_or_refuses(tmp_path / "any.pte", "pte")


def reads_or_refuses(path: Path, fmt: str) -> None:
    try:
        assert isinstance(read_needs(path, fmt), Needs)
    except FinetDeployError as error:
        assert f"not a .{fmt} file" in str(error) and "\n" not in error.message


def test_a_file_that_is_not_there_is_told(tmp_path):
    for fmt in ("ptl", "pte"):
        with pytest.raises(FinetDeployError, match="cannot read"):
            read_needs(tmp_path / "absent", fmt)
    assert read_needs(tmp_path / "absent", "onnx") == Needs(), "ONNX Runtime's limits are not known"
