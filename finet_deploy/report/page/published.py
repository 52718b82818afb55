"""The paper's figures beside ours: which of its rows the suite's networks are, and both in one table."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from finet_deploy.report.numbers import format_estimate
from finet_deploy.report.page.measured import Panel, RowData
from finet_deploy.report.page.table import Cell, Column, Line, Table, plain_table
from finet_deploy.report.paper import PAPER_TABLES, paper_table

__all__ = ["Published", "beside_ours", "kept_tables", "published_row"]

SUITE = "table4"
# The suite's label -> its row in the paper's Table 4 (phones), and in Table 2 (accuracy and size of the large form).
ROWS = {
    "Finet-large, G=4, without SE": ("Finet, without SE", "Finet (FBN, G=4)"),
    "Finet-large, G=4, with SE": ("Finet, with SE", "Finet + SE (FBN, G=4)"),
    "ShuffleNetV2 x1.5": ("ShuffleNetV2", "ShuffleNetV2"),
    "MobileNetV2 1.0": ("MobileNetV2", "MobileNetV2"),
    "MobileNetV3-Large": ("MobileNetV3", "MobileNetV3"),
    "MnasNet-A1": ("MnasNet", "MnasNet"),
}
FIRST = next(iter(ROWS))  # to which both sides' ratios are taken
TITLES = {
    2: "multiply-adds (millions), parameters (millions) and top-1 accuracy on ImageNet",
    3: "the phones",
    4: "images per second on the phones",
    5: "top-1 accuracy on CIFAR by number of groups, with and without affine",
    6: "top-1 accuracy on CIFAR by channels per group",
    7: "top-1 accuracy of ResNet with FBN on CIFAR",
}


@dataclass(frozen=True)
class Published:
    """What the paper prints of a network, digit for digit; empty where it prints nothing. phones: images per second,
    in the order of its Table 3."""

    phones: tuple[str, ...] = ()
    top1: str = ""
    params_millions: str = ""
    mmacs: str = ""


def published_row(panel: Panel, row: RowData) -> Published:
    """The paper's figures of this row; empty ones for a network that is not of the paper's suite."""
    known = panel.run.job.suite == SUITE and row.summary.row.label in ROWS
    return _published(row.summary.row.label) if known else Published()


@functools.cache
def _published(label: str) -> Published:
    speed, size = ROWS[label]
    phones = next(line for line in paper_table(4)[1] if line[0] == speed)[1:]
    header, body = paper_table(2)
    found = dict(zip(header, next(line for line in body if line[0] == size)))
    figures = ("large_top1_percent", "large_params_millions", "large_mmacs")
    return Published(tuple(phones), *(found[name] for name in figures))


def beside_ours(panels: Sequence[Panel]) -> list[Table]:
    """Speed and size of the suite's networks as the paper prints them and as they were measured; none without it."""
    ours = [panel for panel in panels if panel.run.job.suite == SUITE]
    return [_speeds([panel for panel in ours if not panel.emulated], ours), _sizes(ours)] if ours else []


def _speeds(panels: Sequence[Panel], everything: Sequence[Panel]) -> Table:
    """Images per second, and under each figure its ratio to Finet without SE on the same device. panels: of devices
    that are no emulation, the others have no speed to compare."""
    columns = [Column("network", False)]
    columns += [Column(f"paper: {phone[0]} ({phone[1]})") for phone in paper_table(3)[1]]
    columns += [Column(f"ours: {panel.device}, {panel.runtime}", device=panel.device) for panel in panels]
    measured = [{row.summary.row.label: row for row in panel.rows} for panel in panels]
    reference = _published(FIRST)
    lines = []
    for label in ROWS:
        paper = [
            Cell(value, float(value), second=f"× {float(value) / float(base):.2f}")
            for value, base in zip(_published(label).phones, reference.phones)
        ]
        ours = [_speed(rows.get(label), rows.get(FIRST), panel) for panel, rows in zip(panels, measured)]
        lines.append(Line([Cell(label), *paper, *ours]))
    notes = [
        "Paper: phones of 2020 with PyTorch Mobile, trained weights, normalization fused, mean of 1000 images. Other "
        "devices and other runtimes: compare the order and the ratios (×, to Finet without SE in the same column), not "
        "the figures."
    ]
    left_out = dict.fromkeys(panel.device for panel in everything if panel.emulated)
    if left_out:
        notes.append(f"Left out, since their times are not speeds: {', '.join(left_out)}.")
    return Table("The paper's Table 4 beside ours: images per second", columns, lines, notes)


def _speed(row: RowData | None, base: RowData | None, panel: Panel) -> Cell:
    if row is None or row.summary.images_per_second is None:
        return Cell("–", device=panel.device)
    figure, _, interval = format_estimate(row.summary.images_per_second).partition(" ")
    value = row.summary.images_per_second.value
    shared = sorted(row.rates.keys() & base.rates.keys()) if base else []
    ratio = ""
    if base is not None and shared:
        pairs = sorted(row.rates[number] / base.rates[number] for number in shared)
        ratio = f"× {(pairs[len(pairs) // 2] + pairs[(len(pairs) - 1) // 2]) / 2:.2f}"
    return Cell(figure, value, small=interval, second=ratio, device=panel.device)


def _sizes(panels: Sequence[Panel]) -> Table:
    rows = {row.summary.row.label: row.summary.row for panel in panels for row in panel.rows}
    titles = (
        "paper: parameters, M",
        "ours: parameters, M",
        "paper: multiply-adds, M",
        "ours: multiply-adds, M",
    )
    lines = []
    for label in ROWS:
        paper, ours = _published(label), rows.get(label)
        figures = (
            paper.params_millions,
            f"{ours.params / 1e6:.3f}" if ours else "",
            paper.mmacs,
            f"{ours.macs / 1e6:.2f}" if ours else "",
            paper.top1,
        )
        cells = [Cell(figure or "–", float(figure) if figure else None) for figure in figures]
        lines.append(Line([Cell(label), *cells]))
    notes = [
        "Ours are those of the exported network: fusing takes the normalization's parameters away. The paper leaves "
        "one of the two fully connected layers out of its multiply-adds. Top-1 accuracy is the paper's alone: a "
        "benchmark's records hold none."
    ]
    columns = [Column("network", False), *map(Column, titles), Column("paper: top-1 on ImageNet, %")]
    return Table("The paper's Table 2 beside ours: size, and the paper's accuracy", columns, lines, notes)


def kept_tables() -> list[Table]:
    """All tables of the paper that are kept as data, as it prints them."""
    found = []
    for number in PAPER_TABLES:
        header, rows = paper_table(number)
        columns = [name.replace("_", " ") for name in header]
        found.append(plain_table(f"Table {number} of the paper: {TITLES[number]}", columns, rows))
    return found
