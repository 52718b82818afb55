"""The Finet paper's tables (arXiv 2005.06828), as data files in `paper/`."""

from __future__ import annotations

import csv
import io
from importlib import resources

from finet_deploy.errors import UsageError

__all__ = ["PAPER_TABLES", "paper_csv", "paper_table"]

PAPER_TABLES = (2, 3, 4, 5, 6, 7)


def paper_csv(number: int) -> str:
    """The text of one of the paper's tables. `UsageError` for a table that is not kept."""
    if number not in PAPER_TABLES:
        raise UsageError(f"table {number} of the paper is not kept", do=f"use one of {PAPER_TABLES}")
    return resources.files("finet_deploy.report").joinpath("paper", f"table{number}.csv").read_text("utf-8")


def paper_table(number: int) -> tuple[list[str], list[list[str]]]:
    """Column names and rows of one of the paper's tables."""
    header, *rows = csv.reader(io.StringIO(paper_csv(number)))
    return header, rows
