"""Every fault in every phase of a benchmark on a phone: the cells of the matrix, and its table.

`test_fault_matrix.py` makes each cell happen. `python -m tests.device.fault_matrix --write` puts the table into
README.md beside this file.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.device.fault_bench import Moment
from tests.device.fault_rows import FAULTS, FILES, FIRST_VISIT, PHASES, RUNNING, SYNC, Ending, FaultRow

__all__ = ["CELLS", "README", "SAID", "THROUGH_SERVER", "Cell", "parts", "table"]

README = Path(__file__).parent / "README.md"
BEGIN, END = "<!-- fault matrix -->", "<!-- end of fault matrix -->"

# A message names the phase by these words.
SAID = {
    "connect": "connecting|probing the phone|locking the phone|to rest",
    "probe": "probing the phone|locking the phone|to rest",
    "push": "pushing|checking .* on the phone|preparing the phone's folder|to rest",
    "equivalence": "the proof of net|to rest",
    "warm-up": "round 2 of net, last seen in phase warmup|in phase warmup|starting round 2|to rest",
    "timing": "round 2 of net, last seen in phase timing|in phase timing|to rest",
    "collect": "collecting round 2 of net|to rest",
}


@dataclass(frozen=True)
class Cell:
    """One fault in one phase."""

    row: FaultRow
    phase: str
    ending: Ending

    @property
    def id(self) -> str:
        return f"{self.row.name}, {self.phase}".replace(" ", "_")

    @property
    def moment(self) -> Moment:
        """When it strikes."""
        if self.phase == "connect":
            return Moment("open")
        pattern = (self.row.where or FILES)[self.phase]
        if pattern == SYNC:  # the moment is the transfer's, before it is known by name
            pattern = FILES[self.phase]
        call = {"send": "push", "recv": "pull"}.get(pattern[1:5], "shell")
        job = RUNNING.get(self.phase, FIRST_VISIT if self.phase == "collect" else None)
        held = call == "shell" and self.phase in RUNNING
        return Moment(call, pattern.partition(":")[2] or pattern, job, self.phase if held else None)

    @property
    def waits(self) -> bool:
        """Whether it lies in wait for a service or a connection, instead of striking at once."""
        return self.row.where is not None

    @property
    def fault(self) -> tuple[str, dict[str, Any]]:
        """Kind and values as `Phone.set_fault` or, without `when`, `Phone.strike` takes them."""
        values = {**self.row.values, **self.row.more.get(self.phase, {})}
        if self.phase == "connect":
            return self.row.first or self.row.kind, values
        if self.row.where is not None:
            values["when"] = self.row.where[self.phase]
        return self.row.kind, values


CELLS = tuple(
    Cell(row, phase, ending)
    for row in FAULTS
    for phase in PHASES
    if isinstance(ending := row.endings[phase], Ending)
)
# Through the adb server these, too: there the link is another program's, and only the way to it differs.
SERVER_ROWS = {
    "drop the link once",
    "pull the cable",
    "no space left",
    "reboot",
    "kill the runner for memory",
    "garbage once",
    "Ctrl-C",
}
THROUGH_SERVER = tuple(
    cell for cell in CELLS if cell.row.name in SERVER_ROWS and cell.phase in ("push", "timing")
)


def table() -> str:
    """The matrix as Markdown, with the reasons of the cells that cannot exist."""
    lines = [f"| | {' | '.join(PHASES)} |", "|---" * (len(PHASES) + 1) + "|"]
    reasons: dict[str, int] = {}
    for row in FAULTS:
        cells = []
        for phase in PHASES:
            ending = row.endings[phase]
            if isinstance(ending, str):
                cells.append(f"– ({reasons.setdefault(ending, len(reasons) + 1)})")
            else:
                cells.append(ending.text)
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
    notes = [f"({number}) {reason}" for reason, number in reasons.items()]
    return "\n".join([*lines, "", "; ".join(notes) + "."]) + "\n"


def parts(text: str) -> tuple[str, str, str]:
    """The README before, in and after the table."""
    before, begin, rest = text.partition(f"{BEGIN}\n")
    inside, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{README} has no {BEGIN} ... {END}")
    return before + begin, inside, end + after


def main() -> None:
    text = README.read_text()
    before, _, after = parts(text)
    if sys.argv[1:] == ["--write"]:
        README.write_text(f"{before}{table()}{after}")
    else:
        sys.stdout.write(table())


if __name__ == "__main__":
    main()
