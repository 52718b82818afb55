"""Tables and pictures of the documentation, from the recorded results: `python -m docs.make` writes them again.

A table stands in a page between `<!-- table: NAME -->` and `<!-- end of table -->`; a test fails when a page or a
picture is not what this program makes.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable
from pathlib import Path

from finet_deploy.bench.statistics import Estimate
from finet_deploy.report.numbers import format_estimate
from finet_deploy.report.paper import paper_table

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARK = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end of table -->)", flags=re.DOTALL)
RUNTIMES = {"executorch": "ExecuTorch", "onnxruntime": "ONNX Runtime", "torch_mobile": "PyTorch Mobile"}
ROW = dict[str, str]


def rows_of(path: str) -> list[ROW]:
    """The lines of a CSV file in results/."""
    with (RESULTS / path).open(newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def markdown(header: list[str], rows: list[list[str]], *, words: int = 1) -> str:
    """A table; the first `words` columns are words, the others figures."""
    lines = [header, ["---"] * words + ["---:"] * (len(header) - words), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def estimate(row: ROW, name: str) -> str:
    """`value [low, high]` with the digits that the interval supports."""
    return interval(row[name], row[f"{name}_low"], row[f"{name}_high"])


def interval(value: str, low: str, high: str) -> str:
    """The same of three fields of a line; an empty field is an end that is not known."""
    ends = [float(end) if end else None for end in (low, high)]
    return format_estimate(Estimate(value=float(value), low=ends[0], high=ends[1], rounds=0))


def rates(run: str) -> str:
    """Images per second and paired ratios of a run, a pair of columns a runtime."""
    rows = rows_of(f"{run}/results.csv")
    runtimes = list(dict.fromkeys(row["runtime"] for row in rows))
    networks = list(dict.fromkeys(row["network"] for row in rows))
    found = {(row["runtime"], row["network"]): row for row in rows}
    header = ["network"]
    for runtime in runtimes:
        header += [f"{RUNTIMES[runtime]}, images/s [95 %]", "ratio [95 %]"]
    lines = []
    for network in networks:
        line = [network]
        for runtime in runtimes:
            row = found[runtime, network]
            line += [estimate(row, "images_per_second"), ratio(row)]
        lines.append(line)
    return markdown(header, lines)


def ratio(row: ROW) -> str:
    """The ratio to the baseline, with the verdict where there is one."""
    if row["verdict"] == "baseline":
        return "1"
    bold = {"faster": "**faster** ", "slower": "**slower** "}.get(row["verdict"], "")
    return bold + estimate(row, "ratio_to_baseline")


def table4_order() -> str:
    """The paper's phones beside PyTorch Mobile here, each network over Finet without SE."""
    ours = [
        row
        for row in rows_of("table4-quick/results.csv")
        if row["runtime"] == "torch_mobile" and not row["same_file_as"]
    ]
    _, paper = paper_table(4)
    base = [float(value) for value in paper[0][1:]]
    lines = []
    for row, (network, *values) in zip(ours, paper):
        over = [f"{float(value) / first:.2f}" for value, first in zip(values, base)]
        lines.append([network, row["network"], *over, ratio(row).replace("*", "")])
    header = ["network (paper)", "row here", "Galaxy s10e", "Honor v20", "Vivo x27", "server CPU here [95 %]"]
    return markdown(header, lines, words=2)


def training_cost() -> str:
    """What a training step of FBN costs over plain BN of the same widths."""
    rows = rows_of("training/cost_finet_large.csv")
    found = {(row["groups"], row["variant"]): row for row in rows}
    lines = []
    for groups in dict.fromkeys(row["groups"] for row in rows):
        grouped, moments = found[groups, "grouped"], found[groups, "moments"]
        value = float(grouped["saved_ratio_to_bn"])
        bytes_ = f"{value:.2f}" if value < 10 else f"{value:.1f}"
        run = grouped["counted"] == "run"
        lines.append(
            [
                groups if groups.isdigit() else "one input a group",
                bytes_ if run else f"{bytes_} (not run: {float(grouped['saved_bytes']) / 1e9:.0f} GB)",
                f"{float(moments['saved_ratio_to_bn']):.2f}",
                estimate(grouped, "ratio_to_bn") if run else "-",
                estimate(moments, "ratio_to_bn"),
            ]
        )
    header = ["G", "bytes saved for backward: the paper's form", "moment form"]
    return markdown([*header, "step time: the paper's form", "moment form"], lines)


def groups() -> str:
    """Accuracy of Finet-small by G on digits."""
    rows = rows_of("training/groups/table.csv")
    header = ["", *(row["column"] for row in rows)]
    ends = ("top1_mean_percent", "top1_low_percent", "top1_high_percent")
    means = [interval(*(row[end] for end in ends)) for row in rows]
    medians = [f"{float(row['top1_median_percent']):.2f}" for row in rows]
    return markdown(header, [["mean of five seeds [95 %]", *means], ["median", *medians]])


def mimic_rate() -> str:
    """MimicNorm's Table 2 at the one learning rate that was run."""
    rows = [row for row in rows_of("training/mimic-lr0.2/table.csv") if row["row"] == "lr=0.2"]
    here = ["diverged" if int(row["diverged"]) else f"{float(row['top1_mean_percent']):.0f}" for row in rows]
    paper = [row["paper_cifar100_top1_percent"] for row in rows]
    header = ["top-1, % at lr 0.2", *(row["column"] for row in rows)]
    return markdown(
        header, [["here: Finet-small, digits, one seed", *here], ["paper: VGG16, CIFAR-100", *paper]]
    )


def mimic_memory() -> str:
    """Bytes saved for backward of MimicNorm against BN."""
    names = ["network", "BN, MiB an image", "MimicNorm, MiB an image", "saving, %", "reference, %"]
    return markdown(names, [[row[name] for name in names] for row in rows_of("training/mimic_memory.csv")])


def certificates() -> str:
    """The worst figure of each kind over all networks that were certified."""
    rows = rows_of("certificates.csv")
    limits = {
        "fused, fp64": "1e-12",
        "unfused, fp32": "(the yardstick)",
        "fused, fp32": "1e-05",
        ".pte": "1e-05",
        ".onnx": "1e-05",
        ".ptl": "1e-05",
    }
    lines = []
    for name, limit in limits.items():
        worst = max(rows, key=lambda row: float(row[name]))
        lines.append([name, f"{float(worst[name]):.1e}", worst["network"], limit])
    return markdown([f"worst of {len(rows)} networks", "relative error", "network", "limit"], lines)


def api() -> str:
    """The reference of the Python API."""
    from docs.api_reference import reference

    return reference()


TABLES: dict[str, Callable[[], str]] = {
    "table4": lambda: rates("table4-quick"),
    "fusion": lambda: rates("table4-fusion-normal"),
    "table4-order": table4_order,
    "training-cost": training_cost,
    "groups": groups,
    "mimic-rate": mimic_rate,
    "mimic-memory": mimic_memory,
    "certificates": certificates,
    "api": api,
}


def with_tables(text: str) -> str:
    """A page's text with its tables as they are today. KeyError for a table that is not made here."""
    return MARK.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n{found[3]}", text)


def pictures() -> dict[Path, str]:
    """Every picture's path and text."""
    from docs.pictures import fbn

    folder = ROOT / "docs" / "pictures"
    costs = rows_of("training/cost_finet_large.csv")
    return {folder / "fbn-forms.svg": fbn.forms(), folder / "fbn-memory.svg": fbn.memory(costs)}


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(with_tables(page.read_text("utf-8")), encoding="utf-8")
    for path, svg in pictures().items():
        path.write_text(svg, encoding="utf-8")
