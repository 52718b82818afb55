"""The papers' tables as data files in `paper/`: Finet's (arXiv 2005.06828) and MimicNorm's (arXiv 2010.09278)."""

from __future__ import annotations

import csv
import io
from importlib import resources

from finet_deploy.errors import UsageError

__all__ = ["MIMICNORM_TABLES", "PAPER_TABLES", "paper_csv", "paper_table"]

PAPER_TABLES = (2, 3, 4, 5, 6, 7)
MIMICNORM_TABLES = (1, 2)
_KEPT = {"finet": PAPER_TABLES, "mimicnorm": MIMICNORM_TABLES}


def paper_csv(number: int, paper: str = "finet") -> str:
    """The text of a table of one of the papers, `finet` or `mimicnorm`. `UsageError` for a table that is not kept."""
    if paper not in _KEPT:
        raise UsageError(f"the tables of paper {paper!r} are not kept", do=f"use one of {', '.join(_KEPT)}")
    if number not in _KEPT[paper]:
        whose = "the paper" if paper == "finet" else paper
        raise UsageError(f"table {number} of {whose} is not kept", do=f"use one of {_KEPT[paper]}")
    name = f"table{number}.csv" if paper == "finet" else f"{paper}_table{number}.csv"
    return resources.files("finet_deploy.report").joinpath("paper", name).read_text("utf-8")


def paper_table(number: int, paper: str = "finet") -> tuple[list[str], list[list[str]]]:
    """Column names and rows of one of these tables."""
    header, *rows = csv.reader(io.StringIO(paper_csv(number, paper)))
    return header, rows
