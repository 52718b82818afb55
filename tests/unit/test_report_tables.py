"""Tables from records: digits set by the interval, footnotes from the evidence, nothing that runs or breaks out."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import msgspec
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finet_deploy.bench.protocol import Invalid, Reading
from finet_deploy.bench.records import RecordLog, create_run, read_run
from finet_deploy.bench.statistics import Estimate
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.report import (
    CSV_TYPES,
    load_runs,
    paper_csv,
    paper_table,
    read_results,
    render_csv,
    render_json,
    render_latex,
    render_markdown,
    render_notes_csv,
    run_object,
    write_report,
)
from finet_deploy.report import render_html as render_html_page
from finet_deploy.report.markdown import escape, render_table
from finet_deploy.report.numbers import decimals_for, format_estimate, format_significant
from finet_deploy.report.paper import PAPER_TABLES
from tests.bench_fakes import DEVICE, SETTINGS, make_job, make_row, make_run
from tests.rendered import render_html

DATA = Path(__file__).parents[1] / "data" / "bench"


def rows(labels=("Finet", "Peer"), runtime="onnxruntime", **changes):
    made = [
        make_row(f"{runtime}/{n}", label=label, artifact__runtime=runtime, **changes)
        for n, label in enumerate(labels)
    ]
    same = msgspec.structs.replace(
        made[0], id=f"{made[0].id}-aa", label=f"A/A: {labels[0]}", baseline=False, aa_of=made[0].id
    )
    return [*made, same]


def latencies(made, peer_ms=20.0):
    return {row.id: peer_ms if row.label.startswith("Peer") else 10.0 for row in made}


def markdown(tmp_path, made=None, spoil=None, **changes):
    made = made or rows()
    return render_markdown([make_run(tmp_path / "run", make_job(made, **changes), latencies(made), spoil)])


def test_the_markdown_is_as_the_golden_file_has_it(tmp_path):
    pte = rows(runtime="executorch", artifact__delegates=1, artifact__notices=("A note on this file.",))
    text = markdown(tmp_path, [*pte, *rows()], {4: {"threads": 2}}, suite="table4")
    assert text == (DATA / "report.md").read_text("utf-8")


def test_the_csv_is_as_the_golden_file_has_it_and_loads_with_types(tmp_path):
    made = rows()
    run = make_run(tmp_path / "run", make_job(made), latencies(made))
    text = render_csv([run])
    assert text == (DATA / "results.csv").read_text("utf-8")
    frame = read_results(io.StringIO(text))
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == dict(CSV_TYPES)
    assert list(frame["network"]) == ["Finet", "Peer", "A/A: Finet"]
    assert frame["images_per_second_text"][1].startswith("49.51 [49.41, ")
    assert frame["images_per_second"][1] == pytest.approx(50, rel=0.01)
    assert frame["ratio_to_baseline_low"][1] <= frame["ratio_to_baseline"][1] <= 0.51
    assert list(frame["valid_visits"]) == [3, 3, 3]


def test_figures_come_with_interval_ratio_and_verdict(tmp_path):
    text = markdown(tmp_path)
    peer = next(line for line in text.splitlines() if line.startswith("| Peer"))
    cells = [cell.strip() for cell in peer.split("|")[1:-1]]
    assert cells[3] == "slower"
    assert cells[4] == "20.2"
    assert "[" in cells[1] and "[" in cells[2]
    assert "Noise floor: the same file under two names differs by" in text


def test_the_papers_figures_stand_in_a_table_of_their_own(tmp_path):
    text = markdown(tmp_path, suite="table4")
    ours, paper = text.split("## For orientation: the paper's Table 4")
    assert "Phones of 2020 with PyTorch Mobile" in paper
    assert "| Finet, without SE | 7.80 | 6.34 | 2.45 |" in paper
    assert "7.80" not in ours
    assert "Table 4" not in markdown(tmp_path / "other")


@pytest.mark.parametrize("number", PAPER_TABLES)
def test_the_papers_tables_are_rectangular_data(number):
    header, body = paper_table(number)
    assert body
    assert all(len(row) == len(header) for row in body)
    assert len(pandas.read_csv(io.StringIO(paper_csv(number)))) == len(body)


def test_a_table_that_is_not_kept_is_refused():
    with pytest.raises(UsageError, match="table 1 of the paper is not kept"):
        paper_csv(1)


@pytest.mark.parametrize(
    "change",
    [
        {"artifact__dtype": "int8"},
        {"threads": 2},
        {"input_shape": (1, 3, 32, 32)},
        {"fused": False},
        {"artifact__normalization_ops": 4},
    ],
)
def test_rows_that_differ_never_share_a_table(tmp_path, change):
    made = rows()
    other = make_row("onnxruntime/9", label="Odd one", **change)
    text = render_markdown(
        [make_run(tmp_path / "run", make_job([*made, other]), {**latencies(made), other.id: 10.0})]
    )
    tables = [block for block in text.split("\n\n") if block.startswith("| network")]
    assert len(tables) == 2
    assert [("Odd one" in table, "Finet" in table) for table in tables] == [(False, True), (True, False)]
    assert "| Odd one |" in tables[1] and "–" in tables[1]


def test_fusion_compared_on_purpose_shares_a_table_and_says_so(tmp_path):
    made = rows(("net (unfused)", "Peer (fused)"))
    made[0] = msgspec.structs.replace(made[0], fused=False)
    text = markdown(tmp_path, made, mixed_fusion=True)
    assert len([block for block in text.split("\n\n") if block.startswith("| network")]) == 1
    assert "stand in this table on purpose" in text


def test_invalid_visits_are_left_out_and_told_with_round_and_reason(tmp_path):
    made = rows()
    job = make_job(made)
    index = next(v.index for v in job.visits if v.row == made[1].id and v.round == 1)
    text = render_markdown([make_run(tmp_path / "run", job, latencies(made), {index: {"error": 0.5}})])
    assert "INVALID: Peer, round 2: wrong output on 'photo_0': norm-relative error 5.0e-01" in text


def test_a_row_without_a_valid_visit_says_invalid_instead_of_a_number(tmp_path):
    made = rows()
    job = make_job(made)
    spoil = {v.index: {"threads": 2} for v in job.visits if v.row == made[1].id}
    text = render_markdown([make_run(tmp_path / "run", job, latencies(made), spoil)])
    line = next(line for line in text.splitlines() if line.startswith("| Peer"))
    assert "| INVALID | – | no data | – |" in line
    assert "round 1, 2, 3: asked for 1 threads, the runtime reports 2" in text


def test_an_invalid_visit_of_the_same_file_row_fails_the_command_too(tmp_path, capsys):
    from finet_deploy.api import BenchResult
    from finet_deploy.commands.bench import _finish
    from finet_deploy.commands.console import Console

    made = rows()
    job = make_job(made)
    spoiled = next(v.index for v in job.visits if v.row == made[-1].id and v.round == 1)
    run = make_run(tmp_path / "run", job, latencies(made), {spoiled: {"error": 0.5}})
    result = BenchResult((run,), run.folder, (run.folder / "report.md",), {})
    assert not result.passed
    assert _finish(result, False, Console(quiet=True)) == 1
    assert "warning: invalid: A/A: Finet on host, round 2" in capsys.readouterr().err
    assert _finish(result, True, Console(quiet=True)) == 0


def test_an_unfinished_and_resumed_run_says_so(tmp_path):
    made = rows()
    create_run(tmp_path / "run", make_job(made))
    with RecordLog.open(tmp_path / "run") as log:
        log.append([Invalid(visit=0, reason="killed", phase="load")])
        log._write(b'{"cut')
        log.mark_resumed(read_run(tmp_path / "run"), "2026-11-21T01:00:00+00:00")
    text = render_markdown(load_runs([tmp_path / "run"]))
    assert "INCOMPLETE: 8 of 9 visits are missing." in text
    assert "resumed at 2026-11-21T01:00:00+00:00, after 1 of 9 visits" in text
    assert "was cut off when the run was killed (5 bytes left out)" in text


def test_footnotes_tell_device_state_protocol_and_weights(tmp_path):
    text = markdown(tmp_path)
    for expected in (
        "CPU: Example CPU, 2 CPUs; OS: Linux 6.1 x86_64",
        "3 rounds",
        "no interval can cover more than 75%",
        "governor not readable (no cpufreq)",
        "battery not readable (no battery);",
        "frequency 2600 MHz",
        "load average 0.25",
        "temperature 41.5 °C",
        "CPUs allowed: 0, 1",
        "Weights are untrained (seeded) in all rows",
        "ONNX Runtime 1.2.3",
        "1 thread, float32, input 1x3x64x64, fused",
    ):
        assert escape(expected) in text, expected


def test_an_emulated_device_is_called_one(tmp_path):
    text = markdown(tmp_path, device=msgspec.structs.replace(DEVICE, emulated=True))
    assert "emulated: these are not speeds of a real device" in text


def test_a_busy_device_is_told(tmp_path):
    made = rows()
    run = make_run(tmp_path / "run", make_job(made), latencies(made))
    assert "BUSY" not in render_markdown([run])
    start = run.visits[4].records[0]
    state = msgspec.structs.replace(start.state, load_average_1min=Reading(value=3.5))
    with RecordLog.open(run.folder) as log:
        log.append([msgspec.structs.replace(start, state=state), *run.visits[4].records[1:]])
    assert "BUSY: more was running" in render_markdown([read_run(run.folder)])


def test_a_disturbed_aa_row_is_told(tmp_path):
    made = rows()
    for rounds, told in ((3, False), (6, True)):
        job = make_job(made, msgspec.structs.replace(SETTINGS, rounds=rounds))
        run = make_run(tmp_path / f"run{rounds}", job, {**latencies(made), made[2].id: 12.0})
        assert ("does not hold 1: the device was disturbed" in render_markdown([run])) is told


HOSTILE = "x|y <script>alert(1)</script> [a](http://evil) `b` *c* _d_ \n# e & =1+1"


def test_names_cannot_break_out_of_the_markdown(tmp_path):
    device = msgspec.structs.replace(DEVICE, cpu_model=Reading(value=HOSTILE))
    html = render_html(markdown(tmp_path, rows((HOSTILE, "Peer")), device=device))
    for tag in ("<script", "<a ", "<em", "<code", "<h1>e"):
        assert tag not in html
    assert html.count("<th>") + html.count("<th ") == 11
    assert "alert(1)" in html


@given(st.lists(st.text(max_size=30), min_size=1, max_size=4))
def test_any_text_shows_as_itself_in_one_cell(cells):
    html = render_html(render_table(["c"] * len(cells), [cells]))
    body = html.split("<tbody>")[1]
    assert body.count("<tr>") == 1
    assert body.count("<td") == len(cells)
    assert not [tag for tag in ("<em>", "<strong>", "<code>", "<a ", "<s>", "<img", "<br") if tag in body]


@pytest.mark.parametrize("label", ["=1+1", "+1", "-1", "@sum", "\t=1", "\r=1", "=cmd|' /C calc'!A0"])
def test_a_spreadsheet_will_not_run_a_name_as_a_formula(tmp_path, label):
    made = rows((label, "Peer"))
    text = render_csv([make_run(tmp_path / "run", make_job(made), latencies(made))])
    cell = next(csv.DictReader(io.StringIO(text)))["network"]
    assert cell.startswith("'")
    assert cell.endswith(label.strip())


@given(st.floats(1e-6, 1e6))
def test_rounding_loses_little_of_the_uncertainty_and_shows_no_idle_digits(half_width):
    step = 10.0 ** -decimals_for(half_width)
    assert step / half_width <= 1.0 + 1e-9 or step == 1.0
    assert step >= half_width / 31 or step == 1.0


@pytest.mark.parametrize(
    "estimate, text",
    [
        (Estimate(value=57.3162, low=56.8041, high=57.9302, rounds=5), "57.3 [56.8, 57.9]"),
        (Estimate(value=57.3162, low=57.1941, high=57.4302, rounds=5), "57.32 [57.19, 57.43]"),
        (Estimate(value=1234.5, low=1100.0, high=1300.0, rounds=5), "1234 [1100, 1300]"),
        (Estimate(value=0.51234, low=0.5101, high=0.5149, rounds=5), "0.5123 [0.5101, 0.5149]"),
        (Estimate(value=57.3162, low=None, high=None, rounds=1), "57.3"),
        (Estimate(value=1.0, low=1.0, high=1.0, rounds=3), "1.0000 [no spread]"),
        (None, "–"),
    ],
)
def test_an_estimate_has_the_digits_that_its_interval_supports(estimate, text):
    assert format_estimate(estimate) == text


def test_other_figures_have_three_digits():
    assert [format_significant(v) for v in (0.012345, 1.2345, 123.45, 12345.6, 0, None)] == [
        "0.0123",
        "1.23",
        "123",
        "12346",
        "0",
        "–",
    ]


def test_reports_are_written_whole_and_an_empty_run_is_refused(tmp_path):
    made = rows()
    run = make_run(tmp_path / "run", make_job(made, suite="table4"), latencies(made))
    paths = write_report([run], tmp_path / "report")
    made_of = {
        "report.md": render_markdown([run]),
        "results.csv": render_csv([run]),
        "report.tex": render_latex([run]),
        "report.json": render_json([run]),
        "report.html": render_html_page([run]),
        "notes.csv": render_notes_csv([run]),
        "paper_table4.csv": paper_csv(4),
    }
    assert {path.name: path.read_text("utf-8") for path in paths} == made_of
    create_run(tmp_path / "empty", make_job(made))
    with pytest.raises(UsageError, match="no visit was finished"):
        load_runs([tmp_path / "empty"])
    with pytest.raises(UsageError, match="nothing to report"):
        load_runs([])
    (tmp_path / "other").mkdir()
    with pytest.raises(FinetDeployError, match=r"no job\.json in this folder: it is no run"):
        load_runs([tmp_path / "other"])
    with pytest.raises(FinetDeployError, match=r"no job\.json here: there is no such folder"):
        load_runs([tmp_path / "absent"])
    with pytest.raises(FinetDeployError, match=r"no job\.json here: this is a file"):
        load_runs([paths[0]])


def test_a_run_as_an_object_is_json_with_every_figure(tmp_path):
    made = rows()
    run = make_run(tmp_path / "run", make_job(made), latencies(made))
    found = json.loads(json.dumps(run_object(run), allow_nan=False))
    peer = found["comparisons"][0]["rows"][1]
    assert peer["images_per_second"]["low"] < 50 < peer["images_per_second"]["high"] + 1
    assert peer["verdict"] == "slower"
    assert found["missing_visits"] == 0


def test_rows_of_several_runs_stand_in_one_csv_with_what_tells_them_apart(tmp_path):
    made = rows()
    runs = [make_run(tmp_path / name, make_job(made, SETTINGS), latencies(made)) for name in ("one", "two")]
    frame = pandas.read_csv(io.StringIO(render_csv(runs)))
    assert list(frame["run"]) == ["one"] * 3 + ["two"] * 3
    assert render_markdown(runs).count("### ONNX Runtime") == 2


def on_device(tmp_path, name, ms, **changes):
    made = rows()
    device = msgspec.structs.replace(DEVICE, name=name, **changes)
    job = make_job(made, device=device)
    return make_run(tmp_path / name, job, {row.id: ms for row in made})


def test_several_devices_share_a_table_with_a_column_each_and_emulated_ones_have_their_own(tmp_path):
    runs = [on_device(tmp_path, "slow", 20.0), on_device(tmp_path, "fast", 5.0)]
    emulated = [on_device(tmp_path, name, 100.0, emulated=True) for name in ("toy-a", "toy-b")]
    text = render_markdown([*runs, *emulated])
    real, pretended = text.split("\n## ")[1:3]
    assert "| network | slow, 1 thread, test | fast, 1 thread, test |" in real
    assert "| Finet | 49.70 [49.61, 49.90] | 198.8 [198.4, 199.6] |" in real
    assert "toy" not in real
    assert pretended.startswith("ONNX Runtime: EMULATED devices, not speeds")
    assert "slow" not in pretended.split("\n## ")[0]


def test_two_runs_of_one_device_make_no_table_across_devices(tmp_path):
    first = on_device(tmp_path, "phone", 10.0)
    assert "by device" not in render_markdown([first, first])


def by_runner(tmp_path, runner, ms, **changes):
    made = rows()
    device = msgspec.structs.replace(DEVICE, name="phone", **changes)
    job = msgspec.structs.replace(make_job(made, device=device), runner=runner)
    return make_run(tmp_path / f"{runner}-{ms}", job, {row.id: ms for row in made})


def test_app_and_native_runner_of_one_phone_stand_side_by_side_with_their_difference(tmp_path):
    runs = [by_runner(tmp_path, "native", 10.0), by_runner(tmp_path, "app", 12.5)]
    text = render_markdown(runs)
    table = text.split("\n## ")[1]
    assert (
        "| network | phone, native, 1 thread, test | phone, app, 1 thread, test "
        "| phone, app, 1 thread, test: app / native |" in table
    )
    (row,) = [line for line in table.splitlines() if line.startswith("| Finet |")]
    found = re.fullmatch(r".*\| (0\.\d+) \[(0\.\d+), (0\.\d+)\] \|", row)
    assert found, row
    value, low, high = map(float, found.groups())
    assert low <= value <= high and low < 0.8 < high and high - low < 0.02
    assert "Their rounds are not paired" in table
    assert "## bundles on phone, preset test, runner app" in text
    frame = pandas.read_csv(io.StringIO(render_csv(runs)))
    assert sorted(set(frame["runner"])) == ["app", "native"]


def test_app_and_native_runner_of_different_files_have_no_difference(tmp_path):
    made = rows(artifact__sha256="0" * 64)
    device = msgspec.structs.replace(DEVICE, name="phone")
    job = msgspec.structs.replace(make_job(made, device=device), runner="app")
    other = make_run(tmp_path / "other", job, {row.id: 12.5 for row in made})
    table = render_markdown([by_runner(tmp_path, "native", 10.0), other]).split("\n## ")[1]
    (row,) = [line for line in table.splitlines() if line.startswith("| Finet |")]
    assert re.fullmatch(r"\| Finet \| \S+ \[.*\] \| \S+ \[.*\] \| – \|", row), row


def test_an_emulated_phones_app_is_not_compared_with_a_real_ones_native_runner(tmp_path):
    runs = [by_runner(tmp_path, "native", 10.0), by_runner(tmp_path, "app", 12.5, emulated=True)]
    assert "app / native" not in render_markdown(runs)
