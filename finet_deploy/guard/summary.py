"""The result of a guard in Markdown, for a pull request: verdicts, what failed and why, and what the change costs."""

from __future__ import annotations

import re
from collections.abc import Sequence

from finet_deploy.guard.growth import Growth
from finet_deploy.verify import Certificate

__all__ = ["markdown_summary", "plain_text"]

# GitHub cuts a step's summary above 1 MiB off; this many characters of one message are enough.
MESSAGE_CHARACTERS = 600
EMULATED = (
    "Instructions: one inference on the core named, counted under emulation (qemu-user). A cost, not a speed; the same "
    "file gives the same count."
)


def markdown_summary(
    certificates: Sequence[Certificate], growth: Sequence[Growth] = (), notes: Sequence[str] = ()
) -> str:
    """Everything in one page. notes: what was not done, and why."""
    failed = [certificate for certificate in certificates if not certificate.passed]
    grown = [row for row in growth if not row.within]
    verdict = "passed" if not failed and not grown else "**failed**"
    lines = [
        "## Exported bundles",
        "",
        f"{verdict}: {len(certificates)} bundles checked, {len(failed)} failed",
    ]
    lines[-1] += f", {len(grown)} figures grew beyond their limit" if growth else ""
    lines += ["", "| bundle | checks | failed | verdict |", "| --- | ---: | ---: | --- |"]
    for item in certificates:
        made = sum(check.passed is not None for check in item.checks)
        count = len(item.failures) + len(item.missing)
        word = "passed" if item.passed else "**failed**"
        lines.append(f"| {plain_text(item.subject)} | {made} | {count} | {word} |")
    for item in failed:
        lines += ["", f"### {plain_text(item.subject)}", ""]
        lines += [
            f"* {plain_text(check.name)}: {plain_text(check.reason or check.message)}"
            for check in item.failures
        ]
        lines += [f"* {plain_text(name)}: this check was not made" for name in item.missing]
    if growth:
        lines += _growth_table(growth)
    lines += [line for note in notes for line in ("", f"Note: {plain_text(note)}")]
    return "\n".join(lines) + "\n"


def _growth_table(growth: Sequence[Growth]) -> list[str]:
    lines = ["", "### Size and cost beside the base branch", ""]
    if any(row.measure == "instructions" for row in growth):
        lines += [EMULATED, ""]
    lines += ["| bundle | file | figure | base | here | change | limit | |"]
    lines += ["| --- | --- | --- | ---: | ---: | ---: | ---: | --- |"]
    for row in growth:
        figure = "bytes" if row.core is None else f"instructions, {row.core} (emulated)"
        change = "new" if row.percent is None else f"{row.percent:+.2f} %"
        base = "" if row.base is None else f"{row.base:,}"
        verdict = "" if row.within else "**grew**"
        cells = [
            plain_text(row.bundle),
            plain_text(row.file),
            figure,
            base,
            f"{row.new:,}",
            change,
            f"{row.limit:g} %",
            verdict,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def plain_text(text: str) -> str:
    """One line that Markdown and HTML take as words: names and messages come out of files."""
    line = " ".join(text.split())
    line = line if len(line) <= MESSAGE_CHARACTERS else f"{line[:MESSAGE_CHARACTERS]} ..."
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_{}\[\]#|!~@])", r"\\\1", line)
