"""Every format says the same: figures, digits, footnotes; and no name in a record becomes part of the format."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import re
from decimal import Decimal
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from finet_deploy.bench.protocol import Reading
from finet_deploy.bench.statistics import Estimate
from finet_deploy.commands import report as command
from finet_deploy.errors import FinetDeployError, UsageError
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
from finet_deploy.report.numbers import format_estimate, round_estimate
from tests.bench_fakes import DEVICE, SETTINGS, make_job, make_row, make_run
from tests.benchmarks.report_scale import write_runs

RESULTS = Path(__file__).parents[2] / "results"
render_html = MarkdownIt("commonmark").enable(["table", "strikethrough"]).render
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


def plain(text):
    """As a reader sees it: one line, and nothing that cannot be printed."""
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


class _Words(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.text, self.tags = "", []
        self.feed(html)

    def handle_data(self, data):
        self.text += data

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)


@given(st.text(max_size=40) | st.text("[](){}<>!&#*_-+=~`|\\:/.1wa \n", max_size=25))
def test_any_text_in_markdown_shows_as_itself_as_cell_note_and_heading(text):
    for block, tags in (
        (f"* {markdown.escape(text)}x", {"ul", "li"}),
        (f"## y {markdown.escape(text)}", {"h2"}),
        (f"* {markdown.escape(text)}", {"ul", "li"}),
        (markdown.render_table(["c"], [[text]]), {"table", "thead", "tbody", "tr", "th", "td"}),
    ):
        found = _Words(render_html(block))
        assert set(found.tags) <= tags
        assert plain(text) in plain(found.text)


# What `latex.escape` may write: each piece with the character that it prints. All that is not in here is a fault.
PIECES = {
    **{written: char for char, written in latex._SPECIAL.items()},
    r"\allowbreak{}": "",
    "{}": "",
}
PIECE = re.compile(
    "|".join(re.escape(piece) for piece in sorted(PIECES, key=len, reverse=True))
    + r"|\\finetChar\{(\d+)\}\{[0-9A-F]+\}|[^\\{}$&#%_~^\"'`<>|]"
)


def printed(tex):
    """What a LaTeX text without commands of ours prints; AssertionError at anything that is not known to be safe."""
    found, at = "", 0
    while at < len(tex):
        piece = PIECE.match(tex, at)
        assert piece, tex[at : at + 20]
        found += chr(int(piece[1])) if piece[1] else PIECES.get(piece[0], piece[0])
        at = piece.end()
    return found


@given(st.text(max_size=60) | st.text("\\{}$&#%_~^\"'`<>|-,°中 a", max_size=60))
def test_any_text_in_latex_is_only_what_prints_as_itself(text):
    tex = latex.escape(text)
    bent = re.sub(r"(?<=\w)'(?=\w)", "’", plain(text))
    assert printed(tex).replace("’", "'") == bent.replace("’", "'")
    assert "--" not in tex.replace("{\\ttfamily", "") or "–" in text or "—" in text
    assert all(char.isascii() or char in latex._LATIN for char in tex)


FLOATS = st.floats(1e-4, 1e6)


@given(FLOATS, st.floats(0, 0.5), st.floats(0, 0.5))
def test_latex_has_the_digits_that_the_other_formats_have(value, below, above):
    estimate = Estimate(value=value, low=value * (1 - below), high=value * (1 + above), rounds=5)
    center, low, high = round_estimate(estimate)
    tex = latex.latex_estimate(estimate)
    if "no spread" in format_estimate(estimate):
        assert tex == f"${center}$ (no spread)"
        return
    assert format_estimate(estimate) == f"{center} [{low}, {high}]"
    symmetric = re.fullmatch(r"\$([\d.]+) \\pm ([\d.]+)\$", tex)
    found = symmetric or re.fullmatch(r"\$([\d.]+)\^\{\+([\d.]+)\}_\{-([\d.]+)\}\$", tex)
    assert found, tex
    assert found[1] == center
    assert Decimal(center) + Decimal(found[2]) == Decimal(high)
    assert Decimal(center) - Decimal(found[2] if symmetric else found[3]) == Decimal(low)
    assert bool(symmetric) == (Decimal(high) - Decimal(center) == Decimal(center) - Decimal(low))


@pytest.mark.parametrize(
    "estimate, text",
    [
        (Estimate(value=172.31, low=171.1, high=173.51, rounds=5), r"$172.3 \pm 1.2$"),
        (Estimate(value=295.2, low=285.4, high=299.1, rounds=5), "$295^{+4}_{-10}$"),
        (Estimate(value=57.3162, low=None, high=None, rounds=1), "$57.3$"),
        (Estimate(value=1.0, low=1.0, high=1.0, rounds=3), "$1.0000$ (no spread)"),
        (
            Estimate(value=2e18, low=1e18, high=3e18, rounds=3),
            r"$2.0000\cdot 10^{18} \pm 1.0000\cdot 10^{18}$",
        ),
    ],
)
def test_an_interval_is_written_as_in_papers(estimate, text):
    assert latex.latex_estimate(estimate) == text


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
    names = {"report.md", "results.csv", "notes.csv", "report.tex", "report.json", "paper_table4.csv"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert {path.name for path in tmp_path.iterdir()} == {"run", "out"}
    found = _Words(render_html(render_markdown([run])))
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


def on(tmp_path, name, changes=None, **device):
    made = [make_row("onnxruntime/0", label="net")]
    job = make_job(
        made,
        msgspec.structs.replace(SETTINGS, **(changes or {})),
        device=msgspec.structs.replace(DEVICE, name=name, **device),
    )
    folder = tmp_path / f"{name}{len(list(tmp_path.iterdir()))}"
    return make_run(folder, job, {made[0].id: 10.0}).folder


def test_mixed_protocols_in_one_table_are_refused_with_the_differences_listed(tmp_path):
    one = on(tmp_path, "a")
    two = on(tmp_path, "b", {"preset": "paper", "statistic": "mean", "timed_min_runs": 9})
    expected = (
        rf"different protocols.*timed_min_runs: 5 \({one}\), 9 \({two}\); statistic: median \({one}\), mean \({two}\); "
        r"report them one by one, or with --apart"
    )
    with pytest.raises(UsageError, match=expected) as caught:
        load_runs([one, two])
    assert "rounds" not in str(caught.value) and "preset:" not in str(caught.value)


def test_mixed_protocols_apart_share_no_table_and_say_so_in_every_format(tmp_path):
    folders = [on(tmp_path, "a"), on(tmp_path, "b", {"rounds": 4}), on(tmp_path, "c")]
    runs = load_runs(folders, apart=True)
    text = render_markdown(runs)
    assert "| network | a, 1 thread, test | c, 1 thread, test |" in text
    assert "| b, 1 thread" not in text
    for name in ("md", "tex", "json"):
        assert f"rounds: 3 ({folders[0]}, {folders[2]}), 4 ({folders[1]})" in printed_path(
            FORMATS[name].render(runs)
        )


def printed_path(text):
    for written, plain_text in (
        ("\\_", "_"),
        ("{\\ttfamily\\char95}", "_"),
        ("\\allowbreak{}", ""),
        ("{}", ""),
    ):
        text = text.replace(written, plain_text)
    return text


@pytest.mark.parametrize(
    "names, changes, device",
    [
        (("a", "a"), {"rounds": 4}, {}),  # two runs of one device have no common table
        (("a", "b"), {"preset": "other", "description": "names"}, {}),
        (("a", "b"), {"rounds": 4}, {"emulated": True}),
    ],
)
def test_what_shares_no_table_or_no_difference_is_not_refused(tmp_path, names, changes, device):
    assert len(load_runs([on(tmp_path, names[0]), on(tmp_path, names[1], changes, **device)])) == 2


def test_columns_that_differ_in_file_or_version_say_so_below_the_table(tmp_path):
    made = [make_row("onnxruntime/0", label="net", artifact__sha256="0" * 64)]
    job = make_job(made, device=msgspec.structs.replace(DEVICE, name="b"))
    runs = [*load_runs([on(tmp_path, "a")]), make_run(tmp_path / "other", job, {made[0].id: 10.0})]
    text = render_markdown(runs)
    assert "Not the same file in every column (SHA-256 differs): net." in text
    assert "runtime's version" not in text
    assert "Not the same file" not in render_markdown(load_runs([on(tmp_path, "a"), on(tmp_path, "c")]))


def test_two_rows_of_one_name_both_stand_in_the_table_of_devices(tmp_path):
    made = [make_row("onnxruntime/0", label="net"), make_row("onnxruntime/1", label="net")]
    runs = [
        make_run(
            tmp_path / name,
            make_job(made, device=msgspec.structs.replace(DEVICE, name=name)),
            {"onnxruntime/0": 10.0, "onnxruntime/1": 40.0},
        )
        for name in ("a", "b")
    ]
    table = render_markdown(runs).split("\n## ")[1]
    assert "| net | 99" in table and "| net (again) | 24" in table


def test_a_folder_of_run_folders_stands_for_all_of_them(tmp_path):
    for name in ("b", "a"):
        on(tmp_path, name)
    (tmp_path / "notes.txt").write_text("mine")
    assert [run.job.device.name for run in load_runs([tmp_path])] == ["a", "b"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FinetDeployError, match=r"no job\.json in this folder"):
        load_runs([tmp_path / "empty"])


def test_the_command_offers_every_format():
    assert set(command.FORMATS) == set(FORMATS)


def test_a_csv_of_nothing_has_its_columns():
    assert render_csv([]).strip().split(",") == list(CSV_TYPES)


@pytest.mark.parametrize("columns, parts", [(3, 1), (30, 4)])
def test_a_table_too_wide_for_a_page_is_printed_in_parts_with_every_column_once(columns, parts):
    names = tuple(f"device {n:02d}, 4 threads" for n in range(columns))
    cell = Estimate(value=99.0, low=98.0, high=99.5, rounds=5)
    table = document_module.Table(("network", *names), (("net", *[cell] * columns),))
    found = list(latex._side_by_side(table))
    assert len(found) == parts
    assert tuple(name for part in found for name in part.columns[1:]) == names
    assert all(part.columns[0] == "network" and len(part.rows[0]) == len(part.columns) for part in found)


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
