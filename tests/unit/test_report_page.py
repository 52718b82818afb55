"""The page of a report: what it tells of the records, and the same each time."""

from __future__ import annotations

import shutil

import msgspec
import pytest

from finet_deploy.bench.records import Run
from finet_deploy.bench.settings import load_suite
from finet_deploy.bench.summary import summarise
from finet_deploy.report import load_runs, render_html
from finet_deploy.report.numbers import format_estimate
from finet_deploy.report.page import render_figures
from finet_deploy.report.page.published import ROWS, _published
from tests.bench_fakes import DEVICE, SETTINGS, make_job
from tests.cli import run_cli
from tests.report_html import Page
from tests.report_runs import HOST, PHONE, a_run, memory_run, rows_of, steady


@pytest.fixture(scope="module")
def runs() -> list[Run]:
    return load_runs([HOST, PHONE])


@pytest.fixture(scope="module")
def html(runs: list[Run]) -> str:
    return render_html(runs)


def test_every_row_stands_in_a_table_with_interval_ratio_and_verdict(runs, html):
    page = Page(html)
    assert page.open == []
    for run in runs:
        for comparison in summarise(run):
            for summary in comparison.rows:
                rate = format_estimate(summary.images_per_second)
                cells = [row for table in page.tables for row in table if row[0] == summary.row.label]
                mine = [cell for row in cells for cell in row if cell.startswith(rate)]
                assert any(summary.verdict in cell for cell in mine), (summary.row.label, rate)
                if summary.verdict != "baseline":
                    assert any(f"× {format_estimate(summary.ratio)}" in cell for cell in mine)


def test_a_column_is_a_device_and_emulated_ones_never_stand_beside_others():
    slow = a_run(device=msgspec.structs.replace(DEVICE, name="one"))
    fast = a_run(device=msgspec.structs.replace(DEVICE, name="two"))
    toy = a_run(device=msgspec.structs.replace(DEVICE, name="toy", emulated=True))
    heads = [table[0] for table in Page(render_html([slow, fast, toy])).tables if len(table) > 1]
    assert [head for head in heads if "toy, 1 thread, test: images/s" in head] == [
        ["network", "toy, 1 thread, test: images/s"]
    ]
    assert ["network", "one, 1 thread, test: images/s", "two, 1 thread, test: images/s"] in heads
    words = Page(render_html([slow, fast])).words
    assert words.count("Weights are untrained (seeded) in all rows") == 1  # of both columns, told once
    noisy = memory_run(slow.job, lambda number, round_: steady(number * round_, round_))
    assert "one: Noise floor: the same file" in Page(render_html([noisy, fast])).words


def test_runs_of_different_protocols_share_no_table_and_the_page_says_what_differs():
    settings = msgspec.structs.replace(SETTINGS, timed_min_runs=7)
    one = a_run(device=msgspec.structs.replace(DEVICE, name="one"))
    two = a_run(settings=settings, device=msgspec.structs.replace(DEVICE, name="two"))
    html = render_html([one, two])
    assert "timed_min_runs: 5 (" in html and "Not side by side:" in html
    heads = [table[0] for table in Page(html).tables]
    assert not any(
        "one, 1 thread, test: images/s" in h and "two, 1 thread, test: images/s" in h for h in heads
    )
    assert "Not side by side" not in render_html([one])


def test_an_emulated_device_is_called_one_at_the_top_in_headings_plots_and_notes(html):
    words = Page(html).words
    assert "Emulated: tcp:127.0.0.1:34217, native (emulated). Another machine plays this device" in words
    assert (
        html.count("emulated, not speeds") >= 2 + 2 * 3 + 2
    )  # throughput, speed against size, distributions
    assert "Emulated device: these are not speeds of a real one." in html
    assert "Left out, since their times are not speeds: tcp:127.0.0.1:34217, native (emulated)." in words
    paper = next(table for table in Page(html).tables if any("paper: Galaxy" in cell for cell in table[0]))
    assert not any("emulated" in cell for cell in paper[0])
    assert "emulated" not in Page(render_html([a_run()])).words.lower()


def test_the_papers_figures_stand_beside_ours_digit_for_digit(runs, html):
    tables = Page(html).tables
    speeds = next(table for table in tables if any("paper: Galaxy s10e" in cell for cell in table[0]))
    assert speeds[1][:4] == ["Finet-large, G=4, without SE", "7.80× 1.00", "6.34× 1.00", "2.45× 1.00"]
    assert "× 0.93" in speeds[2][4]  # as in results/table4-quick/report.md
    sizes = next(table for table in tables if any("ours: parameters" in cell for cell in table[0]))
    assert sizes[3] == ["ShuffleNetV2 x1.5", "3.5", "3.492", "299", "295.76", "72.6"]
    assert list(ROWS) == [row.label for row in load_suite("table4").rows]
    assert all(len(_published(label).phones) == 3 for label in ROWS)
    assert "Galaxy" not in render_html([a_run()])


def test_certificate_delegation_and_the_phones_proof_are_told_for_every_row(html):
    table = next(table for table in Page(html).tables if "bundle's certificate" in table[0])
    assert len(table) == 1 + 21 + 14
    assert {row[3] for row in table[1:]} == {"passed"}
    shuffle = next(row for row in table if row[0].startswith("Shuffle") and row[2].startswith("ExecuTorch"))
    assert (shuffle[6], shuffle[7], shuffle[9]) == ("0", "15", "55")
    assert [row[4] for row in table if row[1].startswith("tcp:")] == ["11 golden inputs passed"] * 14
    assert {row[4] for row in table if row[1] == "host"} == {"–"}
    failed = msgspec.structs.replace(rows_of(["Finet"])[0], certificate_passed=False)
    assert "FAILED" in render_html([memory_run(make_job([failed]), steady)])


def test_invalid_and_missing_visits_are_told_with_round_and_reason():
    job = make_job(rows_of(["Finet", "Peer"]))
    bad = next(v.index for v in job.visits if v.row == job.rows[1].id and v.round == 1)
    whole = memory_run(job, steady, {bad: {"error": 0.5}})
    gone = next(v.index for v in job.visits if v.row == job.rows[0].id and v.round == 2)
    run = Run(whole.folder, job, {index: visit for index, visit in whole.visits.items() if index != gone})
    html = render_html([run])
    table = next(table for table in Page(html).tables if "why it does not count" in table[0])
    assert [(row[0], *row[3:]) for row in table[1:]] == [
        ("Finet", "–", "MISSING: 1 visit was not finished"),
        ("Peer", "2", "INVALID: wrong output on 'photo_0': norm-relative error 5.0e-01, limit 1.0e-05"),
    ]
    figures = render_figures([run])
    rounds = next(svg for name, svg in figures.items() if name.endswith("rounds"))
    assert rounds.count('class="x"') == 1
    assert "why it does not count" not in render_html([a_run()])


def test_a_run_without_a_valid_visit_is_a_page_without_plots_of_it():
    job = make_job(rows_of(["Finet"]))
    html = render_html([memory_run(job, steady, {visit.index: {"threads": 3} for visit in job.visits})])
    assert "INVALID" in html and "No valid visit: nothing to draw." in html


def test_the_same_records_give_the_same_bytes_wherever_they_lie(html, tmp_path):
    for number, folder in enumerate((HOST, PHONE)):
        shutil.copytree(folder, tmp_path / str(number))
    assert render_html(load_runs([tmp_path / "0", tmp_path / "1"])) == html


def test_the_command_prints_the_page_or_writes_it_with_its_plots(tmp_path, capsys):
    phone = load_runs([PHONE])
    html = render_html(phone)
    status, out, _ = run_cli(capsys, "report", PHONE, "--format", "html")
    assert (status, out) == (0, html)
    pytest.importorskip("resvg_py")
    status, out, err = run_cli(capsys, "report", PHONE, "--format", "html", "-o", tmp_path / "site")
    assert (status, out) == (0, "")
    assert (tmp_path / "site" / "report.html").read_text("utf-8") == html
    assert len(list((tmp_path / "site" / "figures").iterdir())) == 2 * len(render_figures(phone))
    assert "figures/run-1-traces.png" in err
