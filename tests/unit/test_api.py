"""The Python API: the commands without the shell, silent, typed, and as stable as its written signatures."""

from __future__ import annotations

import contextlib
import inspect
import re
import warnings
from pathlib import Path

import pytest
from torch import nn

import finet_deploy
from docs.api_reference import functions, signatures
from finet_deploy import bench, create_model, load_checkpoint, report, save_checkpoint, verify
from finet_deploy.api import Silent, devices
from finet_deploy.bench.records import read_job
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.export.request import request
from finet_deploy.images import preprocessing_for
from finet_deploy.report import FORMATS
from finet_deploy.verify.certify import _default_inputs
from tests.bench_fakes import SETTINGS, PretendDevice, pretend_bundles
from tests.cli import run_cli

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "data" / "api" / "signatures.txt"
DIGITS = ROOT / "models" / "finet_small_se_digits.safetensors"
RUN = ROOT / "results" / "table4-quick"


@pytest.fixture
def bundles(tmp_path, monkeypatch):
    return pretend_bundles(tmp_path, monkeypatch)


@pytest.fixture
def device(monkeypatch):
    """The device that `bench` finds under any name; it keeps what it was opened with."""
    pretended = PretendDevice()

    @contextlib.contextmanager
    def pretend(name, options, listener):
        pretended.opened = name, options
        yield pretended

    monkeypatch.setattr(devices, "open_device", pretend)
    return pretended


class Heard(Silent):
    """Keeps what it is told."""

    def __init__(self):
        self.notes, self.steps = [], []

    def note(self, text):
        self.notes.append(text)

    @contextlib.contextmanager
    def progress(self, title, total):
        yield lambda step: self.steps.append((title, total, step))


def test_signatures_are_those_that_were_promised():
    """A parameter that goes breaks programs: think twice, then `python -m docs.api_reference > tests/data/api/...`."""
    assert signatures() == GOLDEN.read_text("utf-8")


def test_every_parameter_is_explained_by_its_name():
    for name, function in functions().items():
        explained = set(re.findall(r"\w+", function.__doc__ or ""))
        assert set(inspect.signature(function).parameters) - explained == set(), name


def test_the_package_is_typed_and_every_name_is_a_function():
    assert (Path(finet_deploy.__file__).parent / "py.typed").is_file()
    assert set(functions()) == set(finet_deploy.__all__)
    assert all(type(function).__name__ == "function" for function in functions().values())


def test_bench_measures_rows_by_label_and_writes_records_and_tables(bundles, device, tmp_path, capsys):
    heard, paths = Heard(), [bundles("a").bundle, bundles("b").bundle]
    out = tmp_path / "run"
    result = bench({"A": paths[0], "Bee": str(paths[1])}, preset=SETTINGS, out=out, listener=heard)
    assert [row.row.label for row in result.comparisons[0].rows] == ["A", "Bee"]
    assert (result.folder, result.passed, result.invalid, result.failed) == (out, True, (), {})
    assert {path.name for path in result.files} >= {"report.md", "results.csv"}
    assert all(path.is_file() for path in result.files)
    assert "| Bee |" in result.text
    assert result.to_json_object()[0]["missing_visits"] == 0
    assert len(heard.steps) == 2 * 3 * SETTINGS.rounds
    assert capsys.readouterr() == ("", "")


def test_bench_is_the_command_of_that_name(bundles, device, tmp_path, capsys):
    path = bundles("a").bundle
    ours = bench([path], device="A1", preset="smoke", threads=2, pinned=False, out=tmp_path / "api")
    opened = device.opened
    status, out, _ = run_cli(
        capsys, "bench", path, "--device", "A1", "--preset", "smoke", "--threads", 2, "--unpinned",
        "-o", tmp_path / "cli",
    )  # fmt: skip
    assert status == 0
    assert device.opened == opened
    assert opened[0] == "A1"
    assert opened[1].pinned is False
    first, second = ours.runs[0].job, read_job(tmp_path / "cli")
    assert (first.rows, first.settings, first.visits) == (second.rows, second.settings, second.visits)
    assert (first.settings.preset, first.rows[0].threads) == ("smoke", 2)
    assert "| a |" in out


def test_bench_goes_on_with_the_run_in_a_folder(bundles, device, tmp_path):
    device.interrupt_at = 2
    with pytest.raises(KeyboardInterrupt):
        bench([bundles("a").bundle], preset=SETTINGS, out=tmp_path / "run")
    device.interrupt_at = None
    assert bench(resume=tmp_path / "run").runs[0].missing == ()
    assert device.opened[1].runner == "python"  # the one that it was started with
    with pytest.raises(UsageError, match="leave bundles"):
        bench([tmp_path], resume=tmp_path / "run")


def test_an_invalid_visit_is_a_result_and_not_an_exception(bundles, device, tmp_path):
    from tests.bench_fakes import make_records

    def wrong(request):
        return make_records(request.visit, request.row, [10_000_000] * 40, threads=7)

    device.answers = {"b": wrong}
    result = bench([bundles("a").bundle, bundles("b").bundle], preset=SETTINGS, out=tmp_path / "run")
    assert not result.passed
    assert {(where, visit.row) for where, visit in result.invalid} == {("host", "b")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "bundles or a suite"),
        ({"bundles": "bundles/a"}, "a list of them is needed"),
        ({"bundles": ["a"], "suite": "table4"}, "bundles or a suite"),
        ({"suite": "tabel4"}, "did you mean 'table4'"),
        ({"bundles": ["a"], "preset": "qick"}, "did you mean 'quick'"),
        ({"bundles": ["a"], "threads": 0}, "not positive"),
        ({"bundles": ["a"], "device": ["host", "host"]}, "twice"),
        ({"bundles": ["a"], "device": ["host", "A1"], "preset": SETTINGS}, "one after another"),
        ({"bundles": ["absent"]}, "no such bundle"),
    ],
)
def test_a_wrong_call_of_bench_is_refused_before_anything_is_written(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message):
        bench(**options)
    assert list(tmp_path.iterdir()) == []


def test_a_device_that_fails_is_told_and_named_and_the_others_count(bundles, device, tmp_path, monkeypatch):
    def measured(lines, listener):
        bench([bundles("a").bundle], preset="smoke", out=Path(lines["A1"][lines["A1"].index("-o") + 1]))
        return {"A1": 0, "B2": 1}

    monkeypatch.setattr(devices, "measure_each", measured)
    with pytest.warns(UserWarning, match="B2: failed; go on with"):
        result = bench(["bundles/a"], device=["A1", "B2"], preset="smoke", out=tmp_path / "run")
    assert result.failed == {"B2": tmp_path / "run" / "B2"}
    assert len(result.runs) == 1
    assert not result.passed


def test_report_is_the_command_of_that_name(tmp_path, capsys):
    for form in FORMATS:
        found = report(RUN, format=form)
        assert run_cli(capsys, "report", RUN, "--format", form)[1] == found.text
        assert found.text == FORMATS[form].render(found.runs)
    assert "<html" in report(RUN, format="html").text
    found = report([str(RUN)], out=tmp_path / "tables")
    assert {path.name for path in found.files} >= {"report.md", "results.csv"}
    assert found.runs[0].job.suite == "table4"
    assert all(path.is_file() and path.parent == tmp_path / "tables" for path in found.files)
    assert found.to_json_object()[0]["suite"] == "table4"
    assert capsys.readouterr() == ("", "")


def test_a_wrong_call_of_report_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="no report in format 'docx'"):
        report(RUN, format="docx")
    with pytest.raises(UsageError, match="nothing to report"):
        report([])
    with pytest.raises(UsageError, match="is a file"):
        report(RUN, out=tmp_path / "file")
    with pytest.raises(FinetDeployError, match=r"no job\.json"):
        report(tmp_path)
    assert (tmp_path / "file").read_text() == "mine"


def test_what_a_checkpoint_says_of_its_pictures_reaches_export_verify_and_copies(tmp_path):
    model = load_checkpoint(DIGITS)
    own = preprocessing_for(model.model_config, model)
    assert own.std == (0.3241, 0.3241, 0.3241)
    asked = request(
        model, formats=("onnx",), fuse_model=True, passes="none", core="cortex-a76", raw_pixels=False,
        inputs=None, preprocessing=None, dtype="float32", calibration=None,
    )  # fmt: skip
    assert asked.preprocessing == own
    assert {name: float(x.sum()) for name, x in asked.inputs.items()} == {
        name: float(x.sum()) for name, x in _default_inputs(model).items()
    }
    copied = load_checkpoint(save_checkpoint(model, tmp_path / "copy.safetensors"))
    assert preprocessing_for(copied.model_config, copied) == own


def test_verify_asks_for_inputs_of_a_network_that_nobody_described():
    with pytest.raises(UsageError, match="give inputs"):
        verify(nn.Sequential(nn.Conv2d(3, 4, 1)).eval())
    assert next(iter(_default_inputs(create_model("finet_small", cifar=True)).values())).shape == (
        1,
        3,
        32,
        32,
    )


def test_a_silent_listener_says_warnings_and_nothing_else(capsys):
    silent = Silent()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        silent.note("a note")
        silent.warn("a warning")
    assert [str(warning.message) for warning in caught] == ["a warning"]
    with silent.progress("measure", 3) as step:
        step("one")
    assert capsys.readouterr() == ("", "")
