"""Laws of what escapes names and writes figures: any text shows as itself, every format has the same digits."""

from __future__ import annotations

import re
from decimal import Decimal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from finet_deploy.bench.statistics import Estimate
from finet_deploy.report import document as document_module
from finet_deploy.report import latex, markdown
from finet_deploy.report.numbers import format_estimate, round_estimate
from tests.rendered import Words, plain, render_html


@example("a #")
@example("a ##")
@example("1.")
@example("- a")
@given(st.text(max_size=40) | st.text("[](){}<>!&#*_-+=~`|\\:/.1wa \n", max_size=25))
def test_any_text_in_markdown_shows_as_itself_as_cell_note_and_heading(text):
    for block, tags in (
        (f"* {markdown.escape(text)}x", {"ul", "li"}),
        (f"## y {markdown.escape(text)}", {"h2"}),
        (f"* {markdown.escape(text)}", {"ul", "li"}),
        (markdown.render_table(["c"], [[text]]), {"table", "thead", "tbody", "tr", "th", "td"}),
    ):
        found = Words(render_html(block))
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


@pytest.mark.parametrize("columns, parts", [(3, 1), (30, 4)])
def test_a_table_too_wide_for_a_page_is_printed_in_parts_with_every_column_once(columns, parts):
    names = tuple(f"device {n:02d}, 4 threads" for n in range(columns))
    cell = Estimate(value=99.0, low=98.0, high=99.5, rounds=5)
    table = document_module.Table(("network", *names), (("net", *[cell] * columns),))
    found = list(latex._side_by_side(table))
    assert len(found) == parts
    assert tuple(name for part in found for name in part.columns[1:]) == names
    assert all(part.columns[0] == "network" and len(part.rows[0]) == len(part.columns) for part in found)
