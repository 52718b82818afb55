"""What a search may try, what its command refuses, and that its tables show what they are given."""

from __future__ import annotations

import csv
import io
import xml.etree.ElementTree

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finet_deploy.bench.statistics import Estimate
from finet_deploy.tune.model import Candidate, LeftOut, RungReport, TuneResult, TuneRow
from finet_deploy.tune.picture import render_svg
from finet_deploy.tune.place import Place
from finet_deploy.tune.render import render_csv, render_markdown
from finet_deploy.tune.space import shape_cores, thread_counts
from tests.bench_fakes import DEVICE
from tests.cli import USAGE, error_line, run_cli

EXAMPLES = settings(max_examples=80, deadline=None)


def candidate(name: str, **changes) -> Candidate:
    fields = {
        "bundle": "float32-default", "format": "pte", "runtime": "executorch", "dtype": "float32",
        "passes": "default", "core": "cortex-a76", "threads": 1, "cores": None, "changed_by": (),
        "sqnr_db": 120.0, "bytes": 5_000_000, "sha256": "0" * 64,
    }  # fmt: skip
    return Candidate(id=name, **{**fields, **changes})


def result(**changes) -> TuneResult:
    ratio = Estimate(value=1.5, low=1.4, high=1.6, rounds=7)
    rate = Estimate(value=57.0, low=56.0, high=58.0, rounds=7)
    default = TuneRow(
        candidate=candidate("a"), default=True, winner=False, pareto=True,
        ratio=Estimate(value=1.0, low=None, high=None, rounds=7), images_per_second=rate, rounds=7,
    )  # fmt: skip
    fast = TuneRow(
        candidate=candidate("b", dtype="int8", sqnr_db=38.25, cores="little", changed_by=("pad-channels",)),
        default=False, winner=True, pareto=True, ratio=ratio, images_per_second=rate, rounds=7, rung=2,
    )  # fmt: skip
    lost = TuneRow(
        candidate=candidate("c", threads=2), default=False, winner=False, pareto=False, ratio=None,
        why_not="no time",
    )  # fmt: skip
    fields = {
        "tool_version": "1", "created_utc": "now", "subject": "net", "device": DEVICE, "core": None,
        "emulated": False, "runner": "python", "unit": "images/s", "min_sqnr_db": 20.0, "budget_seconds": 600.0,
        "used_seconds": 590.0, "noise_floor": 1.01, "beats_default": True, "sentence": "The winner is b",
        "rungs": (RungReport(entrants=("b", "c"), rounds=1, kept=("b",)),), "rows": (default, fast, lost),
        "left_out": (LeftOut(what="bundle x", reason="check failed"),), "notes": ("cut",),
    }  # fmt: skip
    return TuneResult(**{**fields, **changes})


def test_the_table_says_who_won_how_sure_it_is_and_what_was_left_out():
    text = render_markdown(result())
    assert "The winner is b." in text
    assert (
        "| executorch, int8, passes default for cortex-a76, 1 thread, little cores | winner, Pareto |" in text
    )
    assert "1.50 [1.40, 1.60]" in text
    assert "* bundle x: check failed" in text
    assert "Budget 10 min 0 s, used 9 min 50 s." in text
    assert "* Rung 1: 2 against the default in 1 interleaved round." in text
    assert text.rstrip().endswith("* cut")
    lines = [line for line in text.splitlines() if line.startswith("| executorch")]
    assert [line.split(" | ")[0] for line in lines][-1].endswith("2 threads")  # without a figure: last


def test_the_csv_has_a_line_a_candidate_with_figures_in_full():
    rows = list(csv.DictReader(io.StringIO(render_csv(result()))))
    assert [row["candidate"] for row in rows] == ["a", "b", "c"]
    assert (rows[1]["ratio_to_default_low"], rows[1]["sqnr_db"], rows[1]["cores"]) == (
        "1.4",
        "38.25",
        "little",
    )
    assert (rows[2]["ratio_to_default"], rows[2]["why_not"]) == ("", "no time")


@EXAMPLES
@given(st.text(max_size=20).filter(lambda text: all(char.isprintable() for char in text)))
def test_any_name_gives_whole_tables_and_a_well_formed_picture(name):
    found = result(subject=name)
    columns = [line for line in render_markdown(found).splitlines() if line.startswith("| ")]
    assert len({line.replace("\\|", "").count("|") for line in columns}) == 1
    xml.etree.ElementTree.fromstring(render_svg(found))


def test_the_picture_has_a_mark_for_every_figure_and_its_interval():
    root = xml.etree.ElementTree.fromstring(render_svg(result()))
    groups = root.findall("{http://www.w3.org/2000/svg}g")
    assert len(groups) == 2
    assert "1.50 [1.40, 1.60]" in groups[1][0].text
    marks = [group.find("{http://www.w3.org/2000/svg}circle") for group in groups]
    assert float(marks[1].get("cy")) < float(marks[0].get("cy"))  # faster is higher
    assert float(marks[1].get("cx")) < float(marks[0].get("cx"))  # fp32 is at the right
    assert len(groups[1].findall("{http://www.w3.org/2000/svg}line")) == 1
    xml.etree.ElementTree.fromstring(render_svg(result(rows=(result().rows[0],))))


def test_the_result_reads_back_as_it_was_written():
    assert msgspec.json.decode(msgspec.json.encode(result()), type=TuneResult) == result()


@EXAMPLES
@given(st.integers(1, 300), st.integers(1, 8))
def test_threads_begin_with_the_default_end_with_all_cpus_and_never_exceed_them(cpus, default):
    default = min(default, cpus)
    found = thread_counts(cpus, default)
    assert found[0] == default
    assert {1, cpus} <= set(found)
    assert len(set(found)) == len(found)
    assert max(found) == cpus


def test_shapes_are_tried_for_the_devices_own_cores_and_equal_kernels_once():
    assert shape_cores(["cortex-a53"]) == ("cortex-a53",)
    assert shape_cores(["cortex-a76"]) == ()
    assert shape_cores(["cortex-x1", "cortex-a78"]) == ("cortex-x1",)  # the same kernels
    assert shape_cores([]) == shape_cores(["unknown"]) == ("cortex-a53", "cortex-a78")
    assert Place(core="cortex-a55").shapes() == ("cortex-a55",)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["finet_small"], "give -o FOLDER"),
        (["finet_smal", "--dry-run"], "did you mean 'finet_small'"),
        (["finet_small", "--budget", "soon", "--dry-run"], "no length of time"),
        (["finet_small", "--precisions", "int4", "--dry-run"], "did you mean 'int8'"),
        (["finet_small", "--precisions", ",", "--dry-run"], "no precisions given"),
        (["finet_small", "--precisions", "fp32", "--min-sqnr", "30", "--dry-run"], "are for int8"),
        (["finet_small", "--threads", "0", "--dry-run"], "not a number of threads"),
        (["finet_small", "--threads", "1024", "--dry-run"], "--threads 1024"),
        (["finet_small", "--runtimes", "tflite", "--dry-run"], "no candidate for runtime 'tflite'"),
        (["finet_small", "--device", "cortex-a77", "--dry-run"], "did you mean 'cortex-a7"),
        (["finet_small", "--device", "cortex-a53", "--threads", "2", "--dry-run"], "a count is of one thread"),
        (["finet_small", "--device", "cortex-a53", "--runtimes", "torch_mobile", "--dry-run"], "has no torch_mobile"),
        (["finet_small", "--device", "cortex-a53", "--runner", "app", "--dry-run"], "it is emulated"),
        (["finet_small", "--device", "all", "--dry-run"], "a search is of one device"),
        (["finet_small", "--calibrate", "here", "--precisions", "fp32", "--dry-run"], "are for int8"),
        ([".", "--dry-run"], "no manifest.json"),
        (["absent.safetensors", "--dry-run"], "absent.safetensors"),
    ],
)  # fmt: skip
def test_a_wrong_call_is_one_line_with_what_to_do(capsys, tmp_path, monkeypatch, arguments, hint):
    monkeypatch.chdir(tmp_path)
    status = 1 if arguments[0].endswith("safetensors") else USAGE
    assert hint in error_line(capsys, status, "tune", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_says_what_would_be_searched_and_writes_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, out, _ = run_cli(capsys, "tune", "finet_small", "--device", "cortex-a53", "--dry-run", "--json")
    assert status == 0
    found = msgspec.json.decode(out)
    assert (found["device"], found["emulated"], found["threads"]) == ("cortex-a53", True, [1])
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_is_there_or_half_there_is_told_at_once(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "done").mkdir()
    (tmp_path / "half.unfinished").mkdir()
    assert "output exists" in error_line(capsys, USAGE, "tune", "finet_small", "-o", "done")
    assert "--resume" in error_line(capsys, USAGE, "tune", "finet_small", "-o", "half")
