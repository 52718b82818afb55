"""LaTeX reports compile, by themselves and inside a paper, and print what the records say, whatever they say."""

from __future__ import annotations

import re
import shutil
import subprocess
import unicodedata
from pathlib import Path

import msgspec
import pytest

from finet_deploy.bench.protocol import Reading
from finet_deploy.report import load_runs, render_latex
from finet_deploy.report.document import cell_text, sections
from tests.bench_fakes import DEVICE, make_job, make_row, make_run

RESULTS = Path(__file__).parents[2] / "results"
HOSTILE = (
    r"\input{/etc/passwd}",
    r"\immediate\write18{touch owned} \end{document}",
    r"100% & #1 ~ ^^M ^^5c x_1^2 $\alpha$ {",
    r"} \def\x{\x}\x \csname",
    "<script>alert(1)</script> | \"quoted\" 'single' `back`",
    "--dashes-- ,,commas,, ?` !` <<x>>",
    "../../../etc/passwd\x07\x1b[31m\u202eevil\n\n\\par",
    "ßtraße",
    "Größe naïve Łódź",  # accents are set apart from their letters: not to be found in the text of the PDF
    "网络 сеть 🚀 α",
    "a" * 300,
    "%",
    "\\",
)
PAPER = r"""\documentclass[twocolumn]{article}
\begin{document}
Before it. See Table~\ref{tab:finet-2}.
\input{report}
After it.
\end{document}
"""
ENGINES = [engine for engine in ("pdflatex", "lualatex") if shutil.which(engine)]
pytestmark = pytest.mark.skipif(
    not ENGINES or not shutil.which("pdftotext"), reason="needs TeX Live's pdflatex and poppler's pdftotext"
)


def compile_tex(folder: Path, name: str, engine: str) -> tuple[str, str]:
    """The text of the PDF and the log. Nothing may run a program from inside it."""
    command = [engine, "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", f"{name}.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout.decode("utf-8", "replace")[-3000:]
    log = (folder / f"{name}.log").read_text("utf-8", "replace")
    text = subprocess.run(
        ["pdftotext", "-raw", f"{name}.pdf", "-"], cwd=folder, capture_output=True, timeout=60, check=True
    )
    return text.stdout.decode(), log


def joined(text: str) -> str:
    """Without the breaks of lines; ligatures and bent quotes as what was meant."""
    text = unicodedata.normalize("NFKC", "".join(char if char.isprintable() else " " for char in text))
    text = re.sub(r"[’‘]", lambda found: {"’": "'", "‘": "`"}[found[0]], text)
    return "".join(text.split()).replace("–", "-").replace("−", "-")


def shown(text: str, engine: str) -> str:
    """What a text looks like where the font lacks some of its letters."""
    if engine != "pdflatex":
        return joined(text)
    return joined(
        "".join(char if ord(char) < 0x180 else f"[U+{ord(char):04X}]" for char in text if char.isprintable())
    )


def too_wide(log: str) -> float:
    """By how many points the widest line sticks out."""
    return max(map(float, re.findall(r"Overfull \\hbox \(([\d.]+)pt", log)), default=0.0)


def hostile_run(folder: Path, labels=HOSTILE):
    made = [make_row(f"onnxruntime/{n}", label=label) for n, label in enumerate(labels)]
    made.append(msgspec.structs.replace(made[0], id="onnxruntime/aa", baseline=False, aa_of=made[0].id))
    device = msgspec.structs.replace(DEVICE, name=HOSTILE[1], cpu_model=Reading(reason=HOSTILE[2]))
    job = make_job(made, device=device, suite=HOSTILE[0], runner=HOSTILE[4])
    return make_run(folder, job, {row.id: 10.0 + n for n, row in enumerate(made)}, {4: {"threads": 2}})


@pytest.mark.parametrize("engine", ENGINES)
def test_hostile_names_compile_and_are_printed_as_they_are(tmp_path, engine):
    run = hostile_run(tmp_path / "run")
    (tmp_path / "report.tex").write_text(render_latex([run]), "utf-8")
    text, log = compile_tex(tmp_path, "report", engine)
    assert not (tmp_path / "owned").exists()
    assert "root:x:0" not in text
    assert too_wide(log) < 10
    if engine == "pdflatex":  # which letters LuaTeX's fonts have depends on the machine
        for label in HOSTILE:
            assert "ö" in label or shown(label, engine) in joined(text)


def test_recorded_runs_print_every_figure_and_note_and_no_line_sticks_out(tmp_path):
    runs = load_runs([RESULTS / "table4-quick", RESULTS / "table4-fusion-normal"])
    (tmp_path / "report.tex").write_text(render_latex(runs), "utf-8")
    text, log = compile_tex(tmp_path, "report", ENGINES[0])
    assert too_wide(log) < 5
    found = joined(text)
    for section in sections(runs):
        assert joined(section.title) in found
        for note in section.notes:
            assert joined(note) in found, note
        for row in section.table.rows if section.table else ():
            assert joined(cell_text(row[0])) in found
            for cell in row[1:]:
                assert joined(cell_text(cell).split(" [")[0]) in found


def test_a_table_of_many_rows_breaks_across_pages(tmp_path):
    run = hostile_run(tmp_path / "run", [f"network {n}" for n in range(120)])
    (tmp_path / "report.tex").write_text(render_latex([run]), "utf-8")
    text, log = compile_tex(tmp_path, "report", ENGINES[0])
    assert all(f"network{n}" in joined(text) for n in range(120))
    assert text.count("\f") > 2
    assert too_wide(log) < 5 and "Overfull \\vbox" not in log


def test_a_paper_takes_the_tables_in_without_their_preamble(tmp_path):
    runs = load_runs([RESULTS / "table4-quick"])
    (tmp_path / "report.tex").write_text(render_latex(runs), "utf-8")
    (tmp_path / "paper.tex").write_text(PAPER, "utf-8")
    text, log = compile_tex(tmp_path, "paper", ENGINES[0])
    assert "Afterit." in joined(text) and "MobileNetV3-Large" in joined(text)
    assert too_wide(log) < 5
    assert "longtable" not in log
