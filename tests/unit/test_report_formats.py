"""Every format says the same: figures, digits, footnotes; and no name in a record becomes part of the format."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from pathlib import Path

import msgspec
import pandas
import pytest

from finet_deploy.bench.protocol import Reading
from finet_deploy.commands import report as command
from finet_deploy.report import (
    CSV_TYPES,
    FORMATS,
    latex,
    load_runs,
    markdown,
    read_results,
    render_csv,
    render_json,
    render_latex,
    render_markdown,
    render_notes_csv,
    report_schema,
    write_report,
)
from finet_deploy.report import document as document_module
from finet_deploy.report.data import SCHEMA_FILE, ReportDocument
from tests.bench_fakes import DEVICE, SETTINGS, make_job, make_row, make_run
from tests.benchmarks.report_scale import write_runs
from tests.rendered import Words, plain, render_html

RESULTS = Path(__file__).parents[2] / "results"
HOSTILE = "../a|b <script>alert(1)</script> \\input{/etc/passwd} $x^2$ %& #_~ `b` www.evil.example \x1b[31m\u202e\n=1"


def hostile_run(tmp_path, label=HOSTILE):
    """Two runtimes, one with gaps in its columns; an invalid visit; hostile text wherever a record holds text."""
    made = []
    for runtime, delegates in (("executorch", 3), ("onnxruntime", None)):
        for n, name in enumerate((label, "Peer")):
            row = make_row(
                f"{runtime}/{n}", label=name, artifact__runtime=runtime, artifact__delegates=delegates,
                artifact__notices=(f"notice {label}",), trained=None if n else False,
            )  # fmt: skip
            made.append(row)
        made.append(
            msgspec.structs.replace(made[-2], id=f"{runtime}/aa", baseline=False, aa_of=f"{runtime}/0")
        )
    device = msgspec.structs.replace(DEVICE, name=label, cpu_model=Reading(reason=label))
    job = make_job(made, device=device, suite="table4", runner=label)
    return make_run(
        tmp_path / "run", job, {row.id: 10.0 + n for n, row in enumerate(made)}, {4: {"threads": 2}}
    )


def test_all_formats_carry_the_same_footnotes(tmp_path):
    run = hostile_run(tmp_path)
    found = json.loads(render_json([run]))
    (told,) = found["runs"]
    notes = [*told["footnotes"], *(note for table in told["table_footnotes"] for note in table)]
    assert any("INVALID" in note for note in notes) and any("notice" in note for note in notes)
    assert sorted(note for section in found["sections"] for note in section["notes"]) == sorted(notes)
    listed = list(csv.DictReader(io.StringIO(render_notes_csv([run]))))
    assert [line["note"] for line in listed] == [
        "".join(c if c.isprintable() else " " for c in n) for n in notes
    ]
    assert [line["table"] for line in listed if line["table"]] == sorted(
        line["table"] for line in listed if line["table"]
    )
    text, tex = render_markdown([run]), render_latex([run])
    for note in notes:
        assert f"* {markdown.escape(note)}\n" in text
        assert f" {latex.escape(note)}\\par" in tex


def test_all_formats_print_the_same_digits(tmp_path):
    run = hostile_run(tmp_path)
    printed_rows = [
        [document_module.cell_text(cell) for cell in row]
        for section in document_module.sections([run])[:3]
        if section.table
        for row in section.table.rows
    ]
    sections = json.loads(render_json([run]))["sections"]
    assert [row for section in sections[:3] for row in section["rows"]] == printed_rows
    frame = read_results(io.StringIO(render_csv([run])))
    assert list(frame["images_per_second_text"]) == [row[1] for row in printed_rows]
    for row in printed_rows:
        assert f"| {row[1]} | {row[2]} | {row[3]} |" in render_markdown([run])


def test_the_json_document_is_what_its_schema_says(tmp_path):
    text = render_json([hostile_run(tmp_path)])
    found = msgspec.json.decode(text, type=ReportDocument)
    assert found.runs[0].comparisons[0].rows[0].images_per_second.low < 100
    assert found.runs[0].device.name == HOSTILE
    assert SCHEMA_FILE.read_text("utf-8") == report_schema(), "write report_schema() to SCHEMA_FILE again"
    required = json.loads(report_schema())["$defs"]["ReportDocument"]["properties"]
    assert list(required) == list(json.loads(text))


def test_names_stay_data_in_every_format(tmp_path):
    run = hostile_run(tmp_path)
    write_report([run], tmp_path / "out")
    names = {"report.md", "results.csv", "notes.csv", "report.tex", "report.json", "report.html"}
    names.add("paper_table4.csv")
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert {path.name for path in tmp_path.iterdir()} == {"run", "out"}
    found = Words(render_html(render_markdown([run])))
    assert not {"script", "a", "em", "code", "s"} & set(found.tags)
    assert found.tags.count("table") == 3
    assert plain(HOSTILE) in plain(found.text)
    for form in ("md", "csv", "tex"):
        text = FORMATS[form].render([run])
        assert not [char for char in text if not char.isprintable() and char != "\n"]
    tex = render_latex([run])
    assert "\\input" not in tex.split("\\begin{document}")[1]
    assert json.loads(render_json([run]))["runs"][0]["device"]["name"] == HOSTILE


def test_the_csv_has_its_types_with_gaps_in_every_column_that_may_have_them(tmp_path):
    made = [make_row("a/0", label="NA"), make_row("a/1", label="nan", trained=None, artifact__delegates=4)]
    job = make_job(made, SETTINGS)
    run = make_run(
        tmp_path / "run",
        job,
        {"a/0": 10.0, "a/1": 20.0},
        {0: {"threads": 2}, 2: {"threads": 2}, 4: {"threads": 2}},
    )
    frame = read_results(io.StringIO(render_csv([run])))
    assert {name: str(kind) for name, kind in frame.dtypes.items()} == dict(CSV_TYPES)
    assert list(frame["network"]) == ["NA", "nan"]
    assert list(frame["delegates"].isna()) == [True, False] and frame["delegates"][1] == 4
    assert list(frame["trained"].isna()) == [False, True] and not frame["trained"][0]
    assert frame["suite"].isna().all() and frame["noise_floor_factor"].isna().all()
    assert frame["created_utc"][0] == pandas.Timestamp("2026-11-21", tz="UTC")
    for told, year in (("0001-01-01T00:00:00+00:00", 1), ("9999-12-31", 9999), ("yesterday", None)):
        odd = dataclasses.replace(run, job=msgspec.structs.replace(job, created_utc=told))
        moment = read_results(io.StringIO(render_csv([odd])))["created_utc"]
        assert str(moment.dtype) == CSV_TYPES["created_utc"]
        assert moment[0] is pandas.NaT if year is None else moment[0].year == year
    assert frame["valid_visits"].sum() == 3 and frame["params"].dtype.kind == "i"


def test_plain_pandas_finds_the_types_of_columns_without_gaps(tmp_path):
    run = hostile_run(tmp_path)
    frame = pandas.read_csv(io.StringIO(render_csv([run])))
    kinds = {"Int64": "i", "Float64": "f", "boolean": "b", "string": "O", "datetime64[us, UTC]": "O"}
    full = [name for name in CSV_TYPES if frame[name].notna().all()]
    assert len(full) > 35
    assert {name: frame[name].dtype.kind for name in full} == {name: kinds[CSV_TYPES[name]] for name in full}


def test_the_command_offers_every_format():
    assert set(command.FORMATS) == set(FORMATS)


def test_a_csv_of_nothing_has_its_columns():
    assert render_csv([]).strip().split(",") == list(CSV_TYPES)


def test_ten_thousand_records_make_a_report_that_can_be_sent(tmp_path):
    """How long it takes, tests/benchmarks/report_scale.py measures."""
    runs = load_runs(write_runs(tmp_path, visits=10_000, runs=40, samples=5))
    assert sum(len(run.visits) for run in runs) >= 9_600
    for form in FORMATS.values():
        assert len(form.render(runs).encode()) < 5_000_000


def test_the_readme_names_every_column_with_its_type():
    text = (SCHEMA_FILE.parent / "README.md").read_text("utf-8")
    table = text.split("## CSV")[1].split("## JSON")[0]
    found = {}
    for names, kind in re.findall(r"^\| (`.*?`) \| (.*?) \|", table, re.M):
        found.update(dict.fromkeys(re.findall(r"`(\w+)`", names), kind))
    assert list(found.items()) == list(CSV_TYPES.items())


@pytest.mark.parametrize("name", ["table4-quick", "table4-fusion-normal"])
def test_the_recorded_tables_are_what_their_records_give(name):
    folder = RESULTS / name
    runs = load_runs([folder])
    made = {form.file: form.render for form in FORMATS.values()} | {"notes.csv": render_notes_csv}
    kept = sorted(path.name for path in folder.iterdir() if path.name in made)
    assert kept[:3] == ["notes.csv", "report.md", "report.tex"]
    for file in kept:
        assert (folder / file).read_text("utf-8") == made[file](runs), f"{file}: finet-deploy report -o"
