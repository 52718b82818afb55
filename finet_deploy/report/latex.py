"""A report as LaTeX: a document that compiles as it is, and that a paper may `\\input` for its tables.

Pure: records in, text out. pdfTeX and LuaTeX compile it with nothing but LaTeX's own packages; `\\toprule` and its like
are booktabs' where the paper loads it, and plain rules where it does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal

from finet_deploy.bench.records import Run
from finet_deploy.bench.statistics import CONFIDENCE, Estimate
from finet_deploy.report.document import TITLE, Cell, Section, Table, cell_text, sections
from finet_deploy.report.numbers import round_estimate

__all__ = ["escape", "latex_estimate", "render_latex"]

MAX_FLOAT_ROWS = 25  # rows and notes that fit on a page; longer tables break across pages
LINE_WIDTH = 170  # characters across a page on its side, as far as columns are put into one table
NETWORK_WIDTH, GAP = 38, 3
LONG_WORD, PIECE = 32, 8

PREAMBLE = r"""% Made from run records by finet-deploy. Compile it as it is, or \input it in a paper, where the preamble
% is skipped, \usepackage{booktabs} gives the tables its rules, and tables of many rows need \usepackage{longtable}.
\makeatletter
\ifx\@nodocument\relax\else
  \documentclass[10pt,a4paper,landscape]{article}
  \IfFileExists{booktabs.sty}{\usepackage{booktabs}}{}
  \usepackage{longtable}
  \ifdefined\pdfpagewidth \pdfpagewidth=297mm \pdfpageheight=210mm
  \else \ifdefined\pagewidth \pagewidth=297mm \pageheight=210mm \fi\fi
  \setlength{\textwidth}{267mm}\setlength{\oddsidemargin}{-10.4mm}
  \setlength{\textheight}{170mm}\setlength{\topmargin}{-20mm}
  \setlength{\parindent}{0pt}\setlength{\emergencystretch}{3em}
  \newenvironment{finetTable}{\par\medskip\begin{minipage}{\textwidth}\def\@captype{table}}{\end{minipage}\par\medskip}
  \newcommand{\finetEnd}{\end{document}}
  \begin{document}
\fi
\makeatother
\providecommand{\finetEnd}{}
\providecommand{\finetStyle}{\renewcommand{\arraystretch}{1.3}\ifdim\textwidth<550pt
  \scriptsize\setlength{\tabcolsep}{1.5pt}\else \footnotesize\setlength{\tabcolsep}{4pt}\fi}
\ifdefined\finetTable\else\newenvironment{finetTable}{\begin{table*}[!htbp]}{\end{table*}}\fi
\providecommand{\toprule}{\noalign{\hrule height 0.8pt\vskip 2pt}}
\providecommand{\midrule}{\noalign{\vskip 2pt\hrule height 0.4pt\vskip 2pt}}
\providecommand{\bottomrule}{\noalign{\vskip 2pt\hrule height 0.8pt}}
% A character that the font may not have: itself where it is there, else its number.
\DeclareRobustCommand{\finetChar}[2]{\ifdefined\Umathchar\iffontchar\font#1 \char#1 \else[U+#2]\fi\else[U+#2]\fi}
"""

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "–": "--",
    "—": "---",
    "’": "'",
    "°": r"\ensuremath{{}^\circ}",
    "×": r"\ensuremath{\times}",
    "±": r"\ensuremath{\pm}",
    "µ": r"\ensuremath{\mu}",
    "→": r"\ensuremath{\rightarrow}",
    "≤": r"\ensuremath{\leq}",
    "≥": r"\ensuremath{\geq}",
    # As they are only in typewriter type: elsewhere they are accents, bent quotes, or a rule that nobody can copy.
    **{char: rf"{{\ttfamily\char{ord(char)}}}" for char in "~^_\"'`"},
}
# Letters with accents that pdfTeX makes without another font or package.
_LATIN = frozenset("ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝßàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿŒœŁłŠšŽžČčŘřŃńŚśŹźŻż")


def escape(text: str) -> str:
    """Text that prints as itself: no command, no comment, no mathematics. What cannot be printed is a space.

    A long word may break, without a hyphen, after each few characters. A character that no plain font has prints
    itself or, where the font lacks it, as its number in Unicode.
    """
    text = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(map(_word, text.split()))


def _word(word: str) -> str:
    pieces = [word[i : i + PIECE] for i in range(0, len(word), PIECE)] if len(word) > LONG_WORD else [word]
    return r"\allowbreak{}".join(map(_piece, pieces))


def _piece(piece: str) -> str:
    piece = re.sub(r"(?<=\w)'(?=\w)", "’", piece)  # an apostrophe, which may bend
    pairs = zip(piece, ["", *piece])
    # Two hyphens would be a dash, two commas a quote.
    return "".join(
        ("{}" if char == before and char in "-," else "") + _character(char) for char, before in pairs
    )


def _character(char: str) -> str:
    if char in _SPECIAL:
        return _SPECIAL[char]
    if char.isascii() or char in _LATIN:
        return char
    return rf"\finetChar{{{ord(char)}}}{{{ord(char):04X}}}"


def latex_estimate(estimate: Estimate) -> str:
    """`$57.3 \\pm 0.6$`, or `$57.3^{+0.6}_{-0.5}$` where the interval's ends lie at different distances."""
    value, low, high = round_estimate(estimate)
    if low is None or high is None:
        return f"${_exponent(value)}$"
    if low == value == high:
        return f"${_exponent(value)}$ (no spread)"
    above, below = _apart(high, value), _apart(value, low)
    if above == below:
        return rf"${_exponent(value)} \pm {above}$"
    return f"${_exponent(value)}^{{+{above}}}_{{-{below}}}$"


def _apart(larger: str, smaller: str) -> str:
    distance = Decimal(larger) - Decimal(smaller)
    return _exponent(str(distance)) if "e" in larger else f"{distance:f}"


def _exponent(digits: str) -> str:
    """`1.2e+20` as a power of ten."""
    mantissa, _, power = digits.lower().partition("e")
    return rf"{mantissa}\cdot 10^{{{int(power)}}}" if power else mantissa


def render_latex(runs: Sequence[Run]) -> str:
    """All tables of these runs with their footnotes: what `render_markdown` says, set in LaTeX."""
    parts = [PREAMBLE, rf"\section*{{{TITLE}}}"]
    for number, section in enumerate(sections(runs), start=1):
        parts.extend(_section(section, number))
    parts.append(r"\finetEnd")
    return "\n".join(parts) + "\n"


def _section(section: Section, number: int) -> Iterator[str]:
    title = escape(section.title)
    if section.table is None:
        command = "section" if section.level < 3 else "subsection"
        yield rf"\{command}*{{{title}}}"
        yield from _notes(section.notes)
        return
    caption = f"{title}." + (f" {escape(section.text)}" if section.text else "")
    parts = list(_side_by_side(section.table))
    for i, table in enumerate(parts):
        last = i == len(parts) - 1
        label = f"tab:finet-{number}" + (f"-{i + 1}" if len(parts) > 1 else "")
        notes = section.notes if last else ()
        small = len(table.rows) + 2 * len(notes) <= MAX_FLOAT_ROWS
        yield from (_float if small else _long)(table, f"{caption}{_interval(table)}", label, notes)


def _interval(table: Table) -> str:
    found = any(isinstance(cell, Estimate) and cell.low is not None for row in table.rows for cell in row)
    return rf" Intervals: {CONFIDENCE * 100:.0f}\,\%." if found else ""


def _float(table: Table, caption: str, label: str, notes: Sequence[str]) -> Iterator[str]:
    yield r"\begin{finetTable}"
    yield r"\centering\finetStyle"
    yield rf"\caption{{{caption}}}\label{{{label}}}"
    yield rf"\begin{{tabular}}{{{_format(table)}}}"
    yield rf"\toprule {_head(table)}"
    yield r"\midrule"
    yield from _rows(table)
    yield r"\bottomrule"
    yield r"\end{tabular}\par\smallskip"
    if notes:
        yield r"\begin{minipage}{\linewidth}\raggedright"
        yield from _notes(notes)
        yield r"\end{minipage}"
    yield r"\end{finetTable}"


def _long(table: Table, caption: str, label: str, notes: Sequence[str]) -> Iterator[str]:
    head = f"{_head(table)} \\midrule"
    yield r"{\finetStyle\setlength{\LTcapwidth}{\linewidth}"
    yield rf"\begin{{longtable}}{{{_format(table)}}}"
    yield rf"\caption{{{caption}}}\label{{{label}}}\tabularnewline \toprule {head} \endfirsthead"
    yield rf"\toprule {head} \endhead"
    yield r"\bottomrule \endlastfoot"
    yield from _rows(table)
    yield r"\end{longtable}\raggedright"
    yield from _notes(notes)
    yield r"}"


def _format(table: Table) -> str:
    return r"p{0.2\linewidth}" + "r" * (len(table.columns) - 1)


def _head(table: Table) -> str:
    return " & ".join(map(_heading, table.columns)) + r" \tabularnewline"


def _heading(name: str) -> str:
    """At the right, as the figures below are."""
    lines = _lines(name)
    inner = r"\\".join(map(escape, lines))
    return rf"\begin{{tabular}}[b]{{@{{}}r@{{}}}}{inner}\end{{tabular}}" if len(lines) > 1 else inner


def _lines(name: str) -> list[str]:
    """The words of a heading in lines. That there are intervals is told by the caption."""
    lines: list[str] = []
    for word in name.replace("[95 % interval]", "").split():
        if lines and len(lines[-1]) + len(word) < 12:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines or [""]


def _rows(table: Table) -> Iterator[str]:
    for first, *others in table.rows:
        cells = [rf"\raggedright {escape(cell_text(first))}", *map(_cell, others)]
        yield " & ".join(cells) + r" \tabularnewline"


def _cell(cell: Cell) -> str:
    return escape(cell) if isinstance(cell, str) else latex_estimate(cell)


def _notes(notes: Sequence[str]) -> Iterator[str]:
    for note in notes:
        yield rf"{{\footnotesize\hangindent=1em\hangafter=1 $\bullet$ {escape(note)}\par}}"


def _side_by_side(table: Table) -> Iterator[Table]:
    """Parts of a table that is too wide for a page, each with the first column."""
    widths = [
        max([*map(len, _lines(name)), *(_width(row[n]) for row in table.rows)]) + GAP
        for n, name in enumerate(table.columns)
    ]
    chosen: list[int] = []
    for n in range(1, len(table.columns)):
        if chosen and NETWORK_WIDTH + sum(widths[i] for i in [*chosen, n]) > LINE_WIDTH:
            yield _columns(table, chosen)
            chosen = []
        chosen.append(n)
    yield _columns(table, chosen)


def _width(cell: Cell) -> int:
    """In characters, as printed."""
    return len(cell) if isinstance(cell, str) else len(re.sub(r"\\[a-z]+|[${}^_]", "", latex_estimate(cell)))


def _columns(table: Table, chosen: Sequence[int]) -> Table:
    kept = [0, *chosen]
    return Table(
        tuple(table.columns[n] for n in kept), tuple(tuple(row[n] for n in kept) for row in table.rows)
    )
