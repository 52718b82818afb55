"""Whatever the records hold, the page shows it, loads nothing, runs nothing, and stays small."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from xml.etree import ElementTree

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finet_deploy.bench.protocol import Reading, Start
from finet_deploy.bench.records import Run, VisitResult
from finet_deploy.report import load_runs, render_html
from finet_deploy.report.page import render_figures
from finet_deploy.report.page.text import shown, slug
from tests.bench_fakes import DEVICE, SETTINGS, STATE, make_job
from tests.report_html import Page
from tests.report_runs import HOST, HOSTILE, PHONE, many_rows, memory_run, rows_of, steady


def hostile_runs(text: str) -> list[Run]:
    """Runs of two devices that share a table, with this text wherever the records allow any."""
    return [hostile_run(text, f"{number} {text}") for number in (1, 2)]


def hostile_run(text: str, name: str) -> Run:
    reading = Reading(value=text)
    device = msgspec.structs.replace(
        DEVICE, name=name, cpu_model=reading, operating_system=reading, machine=Reading(reason=text)
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
    """The elements and the names of their attributes, as far as names do not change them by their length: a plot leaves
    out a name that has no room, and joins one to its mark by a line."""
    found = Counter((tag, tuple(sorted(attributes))) for tag, attributes in Page(html).elements)
    return Counter({key: count for key, count in found.items() if key[0] not in ("text", "title", "line")})


PLAIN = shape(render_html(hostile_runs("plain")))


def test_the_page_loads_nothing_and_its_policy_names_its_own_style_and_script_alone():
    page = Page(render_html(load_runs([HOST, PHONE])))
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


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_text_and_nothing_else(text):
    html = render_html(hostile_runs(text))
    page = Page(html)
    assert sum(tag == "script" for tag, _ in page.elements) == 1
    assert shape(html) == PLAIN
    assert shown(text) in " ".join("".join(page.text).split())
    for svg in render_figures(hostile_runs(text)).values():
        root = ElementTree.fromstring(svg)
        assert {element.tag.rpartition("}")[2] for element in root.iter()} <= {
            "svg", "title", "desc", "style", "rect", "text", "g", "line", "path", "circle"
        }  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(st.text(min_size=1, max_size=400).filter(lambda text: shown(text)))
def test_any_name_leaves_the_page_its_elements(text):
    assert shape(render_html(hostile_runs(text))) == PLAIN


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
