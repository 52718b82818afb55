"""Profiles as Markdown and CSV. Pure: data in, text out."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from finet_deploy.profile.model import Profile, Roofline, Row
from finet_deploy.report.markdown import render_table

__all__ = ["groups_of", "kind_of", "module_of", "render_csv", "render_markdown", "title_of"]

THOUSAND, MILLION = 1e3, 1e6
CLASS_TITLES = {"fma": "FMA", "dot": "dot product", "memory": "load, store", "other": "other"}
NOTHING = "–"


def render_markdown(profiles: Sequence[Profile], *, operators: bool = True) -> str:
    """A section for each profile: what it sums up to, by kind of operator, and operator by operator."""
    parts = [f"# Profile: {profiles[0].label}"]
    for profile in profiles:
        parts += [f"## {title_of(profile)}", _summary(profile), _kinds(profile)]
        if operators:
            parts.append(_operators(profile))
        outside = _outside(profile)
        if outside:
            parts.append(outside)
        parts += [f"* {note}" for note in profile.notes]
    return "\n\n".join(parts) + "\n"


def title_of(profile: Profile) -> str:
    emulated = " (emulated)" if profile.emulated else ""
    return f"{profile.runtime} {profile.runtime_version} on {profile.device}{emulated}"


def _summary(profile: Profile) -> str:
    if profile.unit == "instructions":
        total = f"{profile.total / MILLION:.2f} M ARM instructions"
    else:
        total = f"{profile.total / THOUSAND:.3f} ms"
    spread = ""
    if profile.accounted_low is not None and profile.accounted_high is not None:
        spread = f" [{profile.accounted_low:.1%}, {profile.accounted_high:.1%}]"
    text = f"{total} an inference; all rows but the last account for {profile.accounted:.1%}{spread} of it."
    if profile.roofline is not None:
        peak = profile.macs / (profile.total / MILLION) / (profile.roofline.gmacs.value * 1e9)
        text += f" {_best(profile.roofline)} The whole inference is at {peak:.1%} of the first figure."
    longer = "dearer" if profile.unit == "instructions" else "longer"
    return f"{text} Profiling made an inference {profile.profiling - 1:+.1%} {longer}."


def _best(roofline: Roofline) -> str:
    rates = ", ".join(f"{size >> 10} kB: {rate.value:.1f}" for size, rate in roofline.gbytes.items())
    return (
        f"At its best, measured between the visits, this core does {2 * roofline.gmacs.value:.1f} GFLOP/s in a matrix "
        f"product ({roofline.vectors}) and moves, in GB/s by the working set, {rates}."
    )


def groups_of(classes: dict[str, int]) -> dict[str, int]:
    """The classes as tables show them."""
    memory = classes.get("load", 0) + classes.get("store", 0)
    shown = {"fma": classes.get("fma", 0), "dot": classes.get("dot", 0), "memory": memory}
    return {**shown, "other": sum(classes.values()) - sum(shown.values())}


def _cost(profile: Profile, cost: float) -> str:
    return f"{cost / THOUSAND:.1f}" if profile.unit == "instructions" else f"{cost:.1f}"


def _columns(profile: Profile) -> list[tuple[str, Callable[[Row], str]]]:
    """The columns that have something to say in this profile."""
    unit = "k instructions" if profile.unit == "instructions" else "µs"
    columns: list[tuple[str, Callable[[Row], str]]] = [
        (unit, lambda row: _cost(profile, row.cost)),
        ("share", lambda row: f"{row.share:.2%}"),
    ]
    if any(row.classes for row in profile.rows):
        for name, title in CLASS_TITLES.items():
            if any(groups_of(row.classes or {})[name] for row in profile.rows):
                columns.append((title, lambda row, name=name: _class(row, name)))  # type: ignore[misc]
    columns.append(("k MACs", lambda row: _thousands(row.macs)))
    if profile.unit == "instructions":
        columns.append(("MACs an instruction", _density))
    columns.append(("kB", lambda row: _thousands(row.bytes)))
    if any(row.of_bound is not None for row in profile.rows):
        columns.append(("of its bound", _of_bound))
    return columns


def _class(row: Row, name: str) -> str:
    return NOTHING if row.classes is None else f"{groups_of(row.classes)[name] / THOUSAND:.1f}"


def _thousands(value: int | None) -> str:
    return NOTHING if value is None else f"{value / THOUSAND:.1f}"


def _density(row: Row) -> str:
    return NOTHING if not row.macs or not row.cost else f"{row.macs / row.cost:.2f}"


def _of_bound(row: Row) -> str:
    return NOTHING if row.of_bound is None else f"{row.of_bound:.0%} {row.bound}"


def _operators(profile: Profile) -> str:
    columns = _columns(profile)
    heads = ["module", "operator", *(title for title, _ in columns)]
    rows = [[module_of(row), row.operator, *(cell(row) for _, cell in columns)] for row in profile.rows]
    return render_table(heads, rows)


def module_of(row: Row) -> str:
    if row.where == "runtime":
        return ""
    if row.module is None:
        return row.name
    return row.module or "(network)"


def _kinds(profile: Profile) -> str:
    """The same, summed up by kind of operator, dearest first."""
    kinds: dict[str, list[Row]] = {}
    for row in profile.rows:
        kinds.setdefault(kind_of(row), []).append(row)
    sums = sorted((_sum(kind, rows) for kind, rows in kinds.items()), key=lambda row: -row.cost)
    columns = [column for column in _columns(profile) if column[0] != "of its bound"]
    cells = [
        [row.operator, str(len(kinds[row.operator])), *(cell(row) for _, cell in columns)] for row in sums
    ]
    return render_table(["kind", "operators", *(title for title, _ in columns)], cells)


def kind_of(row: Row) -> str:
    """What people call it: a 1x1 convolution that runs as a matrix product is still told from a linear layer."""
    if row.ops and ("conv" in row.ops[0].lower()) and "Fully Connected" in row.operator:
        return f"1x1 convolution as {row.operator}"
    return row.operator


def _sum(kind: str, rows: Sequence[Row]) -> Row:
    classes: dict[str, int] = {}
    for row in rows:
        for name, count in (row.classes or {}).items():
            classes[name] = classes.get(name, 0) + count
    return Row(
        module=None,
        operator=kind,
        name="",
        where=rows[0].where,
        cost=sum(row.cost for row in rows),
        share=sum(row.share for row in rows),
        classes=classes or None,
        macs=_total(row.macs for row in rows),
        bytes=_total(row.bytes for row in rows),
    )


def _total(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _outside(profile: Profile) -> str:
    rows = [row for row in profile.rows if row.where == "outside"]
    if not rows:
        return ""
    lines = [f"Outside the delegates, {sum(row.share for row in rows):.1%} of the whole:", ""]
    lines += [
        f"* {module_of(row)}, {row.operator}: {row.reason or 'the bundle does not say why'}" for row in rows
    ]
    return "\n".join(lines)


def render_csv(profiles: Sequence[Profile]) -> str:
    """One line an operator; plain numbers."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    plain = [name for name in Row.__struct_fields__ if name not in ("classes", "ops")]
    classes = list(dict.fromkeys(name for p in profiles for row in p.rows for name in row.classes or ()))
    head = ["label", "runtime", "runtime_version", "device", "emulated", "threads", "unit"]
    writer.writerow([*head, *plain, "ops", *classes])
    for profile in profiles:
        for row in profile.rows:
            values: list[Any] = [getattr(profile, name) for name in head]
            values += [getattr(row, name) for name in plain]
            values += [" ".join(row.ops), *((row.classes or {}).get(name, "") for name in classes)]
            writer.writerow(["" if value is None else value for value in values])
    return stream.getvalue()
