"""Two sets of runs against each other: what became faster or slower, and how sure that is.

What the verdicts stand on, best first:

* *paired*: both bundles in one interleaved run. What the machine does hits both rows of a round, and goes out.
* *referenced*: two runs at different times. Rows whose file and runtime are the same in both tell what the machine did
  in between; each round of a row is held against theirs of the same round.
* *apart*: two runs with nothing in common. What the machine did is not known, so an allowance is made for it
  (`Options.drift`); a change that it could explain is "cannot tell".

A change is called when Student's test says that it is no chance at 5 %, after Holm's correction over all rows, and
when it is larger than the noise floor (how far the A/A rows of both sides put one file from itself) and than the
threshold. `results/compare` in the repository says how often that is wrong, and what it finds.
"""

from __future__ import annotations

from finet_deploy.compare.changes import FAILURES, Changes, Options, RowChange
from finet_deploy.compare.comparison import compare_sides
from finet_deploy.compare.confirm import Confirmation, confirm
from finet_deploy.compare.facts import Fact, read_costs
from finet_deploy.compare.render import MARKER, changes_object, render_markdown, render_text
from finet_deploy.compare.sides import Side, load_side

__all__ = [
    "FAILURES",
    "MARKER",
    "Changes",
    "Confirmation",
    "Fact",
    "Options",
    "RowChange",
    "Side",
    "changes_object",
    "compare_sides",
    "confirm",
    "load_side",
    "read_costs",
    "render_markdown",
    "render_text",
]
