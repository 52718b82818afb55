"""The plots of a report: their scales and colours, and the files that they become."""

from __future__ import annotations

import io
import itertools
import sys
from xml.etree import ElementTree

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from finet_deploy.bench.records import read_run
from finet_deploy.errors import FinetDeployError
from finet_deploy.report import render_html, write_figures
from finet_deploy.report.page import render_figures
from finet_deploy.report.page.colours import DARK, LIGHT, page_css
from finet_deploy.report.page.drawing import Scale, ticks
from finet_deploy.report.page.traces import MOST_POINTS, _thinned
from tests.report_html import Page
from tests.report_runs import HOST, PHONE, a_run


@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(2, 10))
def test_ticks_lie_in_the_range_evenly_and_are_not_too_many(low, width, count):
    assume(width > abs(low) * 1e-9)  # else the range is lost in the digits of a float
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


def test_heat_and_clocks_are_drawn_where_they_were_read_and_missed_with_the_reason():
    words = Page(render_html([read_run(HOST)])).words
    assert "host: Temperature: no trace, not readable (no thermal zones)." in words
    traces = next(svg for name, svg in render_figures([read_run(PHONE)]).items() if name == "run-1-traces")
    for quantity in (
        "temperature, °C",
        "mean clock during visits, MHz",
        "thermal status, 0 none to 6 shutdown",
    ):
        assert quantity in traces


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
