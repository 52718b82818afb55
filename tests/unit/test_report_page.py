"""The page of a report: made from records alone, the same each time, with nothing in it that runs or reaches out."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import re
import shutil
import sys
from collections import Counter
from html.parser import HTMLParser
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from finet_deploy.bench.protocol import Reading, Start
from finet_deploy.bench.records import Run, VisitResult, read_run
from finet_deploy.bench.settings import load_suite
from finet_deploy.bench.summary import summarise
from finet_deploy.errors import FinetDeployError
from finet_deploy.report import load_runs, render_html, write_figures
from finet_deploy.report.numbers import format_estimate
from finet_deploy.report.page import render_figures
from finet_deploy.report.page.colours import DARK, LIGHT, page_css
from finet_deploy.report.page.drawing import Scale, ticks
from finet_deploy.report.page.published import ROWS, _published
from finet_deploy.report.page.text import shown, slug
from finet_deploy.report.page.traces import MOST_POINTS, _thinned
from tests.bench_fakes import DEVICE, SETTINGS, STATE, make_job
from tests.cli import run_cli
from tests.report_runs import HOST, HOSTILE, PHONE, a_run, many_rows, memory_run, rows_of, steady

VOID = {"meta", "input", "link", "br", "img", "hr"}


class Page(HTMLParser):
    """What a browser would make of the page: its elements with attributes, and the text in tables."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.raw: dict[str, str] = {}
        self.cells: list[list[list[str]]] = []
        self.text: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.cells.append([])
        if tag == "tr":
            self.cells[-1].append([])
        if tag in ("td", "th"):
            self.cells[-1][-1].append("")

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if self.open and self.open[-1] in ("script", "style"):
            self.raw[self.open[-1]] = self.raw.get(self.open[-1], "") + data
        if {"td", "th"} & set(self.open):
            self.cells[-1][-1][-1] += data

    @property
    def tables(self) -> list[list[list[str]]]:
        """Cells by table and row, white space as it shows."""
        return [[[" ".join(cell.split()) for cell in row] for row in table] for table in self.cells]

    @property
    def words(self) -> str:
        return " ".join("".join(self.text).split())


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
        ("Finet", "–", "MISSING: 1 visits were not finished"),
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


def test_the_page_loads_nothing_and_its_policy_names_its_own_style_and_script_alone(html):
    page = Page(html)
    attributes = [(tag, name, value or "") for tag, found in page.elements for name, value in found.items()]
    assert not [one for one in attributes if one[1] in ("src", "srcset", "style", "action", "background")]
    assert not [one for one in attributes if one[1].startswith("on")]
    assert all(value.startswith("#") for _, name, value in attributes if name in ("href", "xlink:href"))
    assert "url(" not in page.raw["style"] and "@import" not in page.raw["style"]
    for word in ("fetch(", "XMLHttpRequest", "import(", "innerHTML", "eval(", "WebSocket", "sendBeacon"):
        assert word not in page.raw["script"]
    policy = next(found["content"] for tag, found in page.elements if "http-equiv" in found)
    hashes = {
        kind: base64.b64encode(hashlib.sha256(page.raw[kind].encode()).digest()).decode()
        for kind in ("style", "script")
    }
    assert policy == (
        f"default-src 'none'; style-src 'sha256-{hashes['style']}'; script-src 'sha256-{hashes['script']}'; "
        "base-uri 'none'; form-action 'none'"
    )


def hostile_run(text: str) -> Run:
    """A run with this text wherever the records allow any."""
    reading = Reading(value=text)
    device = msgspec.structs.replace(
        DEVICE, name=text, cpu_model=reading, operating_system=reading, machine=Reading(reason=text)
    )
    settings_ = msgspec.structs.replace(SETTINGS, preset=text, description=text)
    rows = rows_of(
        [text, f"{text} 2"], text, artifact__dtype=text, artifact__file=text, artifact__notices=(text,)
    )
    job = make_job(rows, settings_, device=device, suite=text, runner=text, left_out=(text,))
    run = memory_run(job, steady, {0: {"error": 0.5}, 1: {"runtime": text + "!"}})
    state = msgspec.structs.replace(
        STATE,
        temperatures_celsius=Reading(value={text: 40.0, text + "2": 41.0}),
        governor=Reading(reason=text),
    )
    for result in run.visits.values():
        start = result.find(Start)
        changed = msgspec.structs.replace(start, state=state, started_utc=text)
        run.visits[result.visit] = VisitResult(result.visit, (changed, *result.records[1:]))
    return run


def shape(html: str) -> Counter[tuple[str, tuple[str, ...]]]:
    """The elements and the names of their attributes, as far as they do not depend on the length of names."""
    found = Counter((tag, tuple(sorted(attributes))) for tag, attributes in Page(html).elements)
    return Counter({key: count for key, count in found.items() if key[0] not in ("text", "title")})


PLAIN = shape(render_html([hostile_run("plain")]))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_text_and_nothing_else(text):
    html = render_html([hostile_run(text)])
    page = Page(html)
    assert sum(tag == "script" for tag, _ in page.elements) == 1
    assert shape(html) == PLAIN
    assert shown(text) in " ".join("".join(page.text).split())
    for svg in render_figures([hostile_run(text)]).values():
        root = ElementTree.fromstring(svg)
        assert {element.tag.rpartition("}")[2] for element in root.iter()} <= {
            "svg", "title", "desc", "style", "rect", "text", "g", "line", "path", "circle"
        }  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.text(min_size=1, max_size=400).filter(lambda text: shown(text)))
def test_any_name_leaves_the_page_its_elements(text):
    assert shape(render_html([hostile_run(text)])) == PLAIN


@given(st.text(max_size=1000), st.integers(2, 200))
def test_shown_text_is_one_short_printable_line_and_a_slug_is_a_file_name(text, longest):
    line = shown(text, longest)
    assert len(line) <= longest and line.isprintable() and line == line.strip()
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", slug(text))


extreme = st.lists(st.integers(1, 10**15), min_size=1, max_size=8)


@settings(max_examples=25, deadline=None)
@given(st.lists(extreme, min_size=9, max_size=9), st.floats(allow_nan=False, allow_infinity=False))
def test_any_latencies_and_readings_make_a_page_and_pictures_without_nan(latencies, celsius):
    job = make_job(rows_of(["Finet", "Peer"]))
    run = memory_run(job, lambda number, round_: latencies[number * 3 + round_])
    start = run.visits[0].find(Start)
    state = msgspec.structs.replace(STATE, temperatures_celsius=Reading(value={"hot": celsius}))
    changed = msgspec.structs.replace(start, state=state)
    run.visits[0] = VisitResult(0, (changed, *run.visits[0].records[1:]))
    Page(render_html([run]))
    for svg in render_figures([run]).values():
        places = [
            value
            for element in ElementTree.fromstring(svg).iter()
            for name, value in element.attrib.items()
            if name in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy", "d", "width", "height")
        ]
        assert not [value for value in places if "nan" in value or "inf" in value]


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(2, 10))
def test_ticks_lie_in_the_range_evenly_and_are_not_too_many(low, width, count):
    found = ticks(low, low + width, count)
    slack = width * 1e-6
    assert all(low - slack <= value <= low + width + slack for value in found)
    assert len(found) <= 4 * count + 1
    gaps = [b - a for a, b in itertools.pairwise(found)]
    assert not gaps or max(gaps) - min(gaps) <= max(gaps) * 1e-3 + abs(low) * 1e-9


def test_a_scale_keeps_order_and_ends_also_where_it_is_logarithmic():
    for log in (False, True):
        scale = Scale(1, 100, 10, 210, log=log)
        assert (scale(1), scale(100)) == (10, 210)
        assert scale(10) == pytest.approx(110 if log else 10 + 200 * 9 / 99)
        assert (scale.clipped(0.1), scale.clipped(1e9)) == (10, 210)


def test_thinned_traces_keep_their_highest_and_lowest_reading():
    points = [(float(i), float((i * 7919) % 10007)) for i in range(5000)]
    thin = _thinned(points)
    assert len(thin) <= MOST_POINTS and thin == sorted(thin)
    assert {max(points, key=lambda p: p[1]), min(points, key=lambda p: p[1])} <= set(thin)


def test_heat_and_clocks_are_drawn_where_they_were_read_and_missed_with_the_reason(html):
    words = Page(html).words
    assert "host: Temperature: no trace, not readable (no thermal zones)." in words
    traces = next(svg for name, svg in render_figures([read_run(PHONE)]).items() if name == "run-1-traces")
    for quantity in (
        "temperature, °C",
        "mean clock during visits, MHz",
        "thermal status, 0 none to 6 shutdown",
    ):
        assert quantity in traces


@pytest.mark.parametrize("networks, rounds", [(23, 70), (832, 2)])
def test_ten_thousand_records_make_a_page_below_five_megabytes(networks, rounds):
    run = many_rows(networks, rounds)
    assert sum(len(result.records) for result in run.visits.values()) >= 9_990
    html = render_html([run])
    assert len(html.encode()) < 5_000_000
    page = Page(html)
    table = next(table for table in page.tables if table[0][:2] == ["network", "device"])
    assert len(table) == 1 + networks + 1  # every row is in the table, whatever the plots leave out
    assert ("of 833 rows." in html) is (networks == 832)


def contrast(one: str, two: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(one), luminance(two)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("colours", [LIGHT, DARK])
def test_text_and_marks_stand_out_from_their_background(colours):
    for front in ("text", "muted", "accent"):
        for back in ("bg", "surface", "raised"):
            assert contrast(colours[front], colours[back]) >= 4.5, (front, back)
    for name in ("good", "bad", "warn"):
        assert contrast(colours[name], colours[f"{name}-bg"]) >= 4.5
    for number in range(8):
        assert contrast(colours[f"s{number}"], colours["surface"]) >= 3
    assert LIGHT.keys() == DARK.keys()
    assert page_css().count("{") == page_css().count("}")


def test_plots_are_saved_as_svg_and_png_and_without_the_extra_nothing_is_written(tmp_path, monkeypatch):
    pytest.importorskip("resvg_py")
    run = a_run()
    paths = write_figures([run], tmp_path / "figures")
    assert {path.suffix for path in paths} == {".svg", ".png"}
    assert sorted(path.stem for path in paths if path.suffix == ".png") == sorted(render_figures([run]))
    for path in paths:
        if path.suffix == ".png":
            size = ElementTree.parse(path.with_suffix(".svg")).getroot().attrib
            image = Image.open(io.BytesIO(path.read_bytes())).convert("RGB")
            assert image.size == (2 * int(size["width"]), 2 * round(float(size["height"])))
            assert len(image.getcolors(1 << 24)) > 20  # text and marks, not an empty sheet
    monkeypatch.setitem(sys.modules, "resvg_py", None)
    with pytest.raises(FinetDeployError, match="resvg-py, which is not installed") as error:
        write_figures([run], tmp_path / "none")
    assert "finet-deploy[report]" in str(error.value)
    assert not (tmp_path / "none").exists()


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
