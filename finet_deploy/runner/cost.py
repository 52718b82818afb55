"""Deterministic cost: ARM instructions per inference of bundles, as a table. A cost under emulation, not a speed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from finet_deploy.bench.protocol import VisitRequest
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.json_files import encode_json
from finet_deploy.runner.counting import CLASSES, Count, build_plugin, count_visit, emulated_rows
from finet_deploy.runner.emulate import Core, core, find_qemu
from finet_deploy.runner.folder import runner_folder
from finet_deploy.runner.manifest import read_manifest
from finet_deploy.runner.targets import NATIVE_RUNTIMES

__all__ = ["NOTE", "CostRow", "CostTable", "measure_cost", "render_csv", "render_markdown"]

SCHEMA_VERSION = 1
NOTE = (
    "Counted under emulation (qemu-user), one thread. This is a cost, not a speed: an instruction count knows no "
    "caches, no clock, no dual issue and no heat. The same command gives the same count."
)
TITLES = {
    "fma": "vector FMA",
    "dot": "dot product",
    "simd": "other SIMD",
    "load": "load",
    "store": "store",
    "branch": "branch",
    "integer": "integer",
    "sve": "SVE",
}
MILLION = 1e6


class CostRow(msgspec.Struct, frozen=True, kw_only=True):
    """One bundle in one runtime on one core. `instructions`: all, per inference; `classes` sum up to it."""

    label: str
    fused: bool
    runtime: str
    runtime_version: str
    core: str
    delegates: int | None
    nodes_outside: int | None
    macs: int
    artifact_sha256: str
    instructions: int
    classes: dict[str, int]
    output_error: float
    dtype: str = "float32"


class CostTable(msgspec.Struct, frozen=True, kw_only=True):
    """All rows, and with what they were counted."""

    schema_version: int = SCHEMA_VERSION
    emulated: bool = True
    note: str = NOTE
    emulator: str
    runner_key: str
    rows: tuple[CostRow, ...]


def measure_cost(
    bundles: Sequence[tuple[Path, str | None]],
    *,
    cores: Sequence[str],
    runtimes: Sequence[str] | None = None,
    progress: Callable[[str], None] = lambda step: None,
) -> CostTable:
    """Count one inference of every bundle (path, label) on every core, in the native runner's runtimes.

    Raises UsageError for unknown cores, runtimes or bundles; FinetDeployError when a tool is missing, or a visit
    fails: the outputs on the golden inputs must be right under emulation too.
    """
    wanted = [core(name) for name in dict.fromkeys(cores)]
    if not bundles or not wanted:
        raise UsageError("nothing to count", do="name at least one bundle and one core")
    _check_runtimes(runtimes)
    _, emulator = find_qemu()
    runner, plugin = runner_folder("aarch64"), build_plugin()
    todo = [
        (item, request)
        for path, label in bundles
        for item in wanted
        for request in emulated_rows(path, label, item, None if runtimes is None else list(runtimes))
    ]
    _check_labels(todo)
    rows = []
    for item, request in todo:
        count = count_visit(request, item, runner, plugin)
        rows.append(_row(item, request, count))
        progress(f"{request.row.label} on {request.row.artifact.runtime}, {item.name}")
    return CostTable(
        emulator=f"qemu-aarch64 {emulator}", runner_key=read_manifest(runner).key, rows=tuple(rows)
    )


def _check_runtimes(runtimes: Sequence[str] | None) -> None:
    for name in runtimes or ():
        if name not in NATIVE_RUNTIMES:
            raise UsageError(
                f"no instruction count for runtime {name!r}", do=f"use {', '.join(NATIVE_RUNTIMES)}"
            )


def _check_labels(todo: Sequence[tuple[Core, VisitRequest]]) -> None:
    if not todo:
        raise UsageError("none of these bundles has a .pte or .onnx file", do="export one of these formats")
    keys = [
        (r.row.label, r.row.fused, r.row.artifact.dtype, r.row.artifact.runtime, item.name)
        for item, r in todo
    ]
    twice = sorted({key[0] for key in keys if keys.count(key) > 1})
    if twice:
        raise UsageError(f"two rows are called {', '.join(map(repr, twice))}", do="give labels: LABEL=BUNDLE")


def _row(item: Core, request: VisitRequest, count: Count) -> CostRow:
    row = request.row
    return CostRow(
        label=row.label,
        fused=row.fused,
        runtime=row.artifact.runtime,
        runtime_version=count.runtime_version,
        core=item.name,
        delegates=row.artifact.delegates,
        nodes_outside=row.artifact.nodes_outside,
        macs=row.macs,
        artifact_sha256=row.artifact.sha256,
        instructions=count.total,
        classes=count.classes,
        output_error=count.output_error,
        dtype=row.artifact.dtype,
    )


def render_markdown(table: CostTable) -> str:
    """A table for each core and runtime; millions of instructions, and instructions per multiply-add."""
    groups: dict[tuple[str, str, str], list[CostRow]] = {}
    for row in table.rows:
        groups.setdefault((row.core, row.runtime, row.runtime_version), []).append(row)
    lines = ["# ARM instructions per inference", "", NOTE, "", f"Emulator: {table.emulator}."]
    for (name, runtime, version), rows in groups.items():
        shown = [item for item in CLASSES if any(row.classes[item] for row in rows)]
        heads = [
            "network",
            "form",
            *(["delegates"] if rows[0].delegates is not None else []),
            "M instructions",
        ]
        heads += ["per MAC", *(TITLES[item] for item in shown)]
        lines += ["", f"## {name}, {runtime} {version} (emulated)", "", _line(heads)]
        lines.append(_line(["---", "---", *["---:"] * (len(heads) - 2)]))
        for row in rows:
            cells = [row.label, _form(row)]
            cells += [str(row.delegates)] if rows[0].delegates is not None else []
            cells += [f"{row.instructions / MILLION:.2f}", f"{row.instructions / row.macs:.3f}"]
            lines.append(_line([*cells, *(f"{row.classes[item] / MILLION:.2f}" for item in shown)]))
    return "\n".join(lines) + "\n"


def _form(row: CostRow) -> str:
    form = "fused" if row.fused else "unfused"
    return form if row.dtype == "float32" else f"{form}, {row.dtype}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def render_csv(table: CostTable) -> str:
    """One line a row, whole numbers; the first column says that it is emulated."""
    import csv
    import io

    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    plain = [name for name in CostRow.__struct_fields__ if name != "classes"]
    writer.writerow(["emulated", *plain, *CLASSES])
    for row in table.rows:
        values: list[Any] = [getattr(row, name) for name in plain]
        writer.writerow(["true", *values, *(row.classes[name] for name in CLASSES)])
    return stream.getvalue()


def write_tables(table: CostTable, folder: Path) -> list[Path]:
    """`cost.json`, `cost.csv` and `cost.md` in `folder`. FinetDeployError when they cannot be written."""
    from finet_deploy.files import atomic_write_bytes, atomic_write_text

    if folder.exists() and not folder.is_dir():
        raise FinetDeployError("output is a file", where=str(folder), do="name a folder")
    paths = [folder / f"cost.{suffix}" for suffix in ("json", "csv", "md")]
    atomic_write_bytes(paths[0], encode_json(table))
    atomic_write_text(paths[1], render_csv(table))
    atomic_write_text(paths[2], render_markdown(table))
    return paths
