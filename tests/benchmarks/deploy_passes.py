"""What each deploy pass gains: ARM instructions, delegates and operators outside them, network by network.

    python tests/benchmarks/deploy_passes.py [--network finet_large_g4] [--core cortex-a76] [--format pte] -o FOLDER

Every network is exported once without passes, then once more after each default pass that changed it, all passes before
it included, and then with each pass that is not a default of the format beside all that are: the reason why it is none.
All files are run under emulation and must reproduce the golden outputs of the network that was not rewritten. Counts,
not speeds. What was counted is kept in FOLDER/passes.json; `--fresh` counts it again.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from torch.export import ExportedProgram

from finet_deploy.bench.settings import load_suite
from finet_deploy.export import export
from finet_deploy.export.bundle import Bundle
from finet_deploy.export.executorch import to_pte
from finet_deploy.export.exported import Exported, trace_program
from finet_deploy.export.onnx import to_onnx
from finet_deploy.files import atomic_write_bytes, atomic_write_text, sha256_bytes
from finet_deploy.fuse import fuse
from finet_deploy.images import default_images, natural_noise, preprocessing_for
from finet_deploy.passes import PASS_NAMES, apply_passes, default_passes
from finet_deploy.runner.counting import CLASSES, build_plugin, count_visit, emulated_rows
from finet_deploy.runner.emulate import core as core_named
from finet_deploy.runner.folder import runner_folder
from finet_deploy.runtimes import runtime_of
from finet_deploy.untrained import prepare_untrained
from finet_deploy.zoo import create_model

CORES = ("cortex-a76", "cortex-a53")
EXPORTERS: dict[str, Callable[[ExportedProgram], Exported]] = {"pte": to_pte, "onnx": to_onnx}
FUSED = "fused"
SMALL = {
    "finet_small_g4": ("Finet-small, G=4, without SE", "finet_small", {"num_groups": 4, "se": False}),
    "finet_small_g4_se": ("Finet-small, G=4, with SE", "finet_small", {"num_groups": 4, "se": True}),
}
NOTE = (
    "ARM instructions of one inference, fp32, one thread, counted under emulation (qemu-user): a cost, not a speed. A "
    "line `+ pass` has the passes of the lines above it too. A line `or + pass` has all default passes and one that is "
    "not a default of this format; what it gains is against all default passes. Passes that found nothing to do have "
    "no line. `over the bound`: instructions over the multiply-adds of the network as it was fused, four to an "
    "instruction. Weights are seeded."
)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One network on one core and runtime, with the default passes up to and with `step` (FUSED: none).

    default: False where `step` is no default and was tried beside all defaults. before: instructions of the form that
    `step` changed. delegates, nodes_outside: of ExecuTorch. operators: nodes of the file's graph, where it has neither.
    """

    network: str
    label: str
    core: str
    runtime: str
    step: str
    default: bool
    delegates: int | None
    nodes_outside: int | None
    operators: int | None
    macs: int
    before: int
    instructions: int
    classes: dict[str, int]
    output_error: float
    max_error: float | None
    artifact_sha256: str


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """All rows. `emulated`: always."""

    schema_version: int = 2
    emulated: bool = True
    note: str = NOTE
    rows: tuple[Row, ...]


def networks() -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Name -> label, model and options: the paper's Table 4, and Finet-small."""
    rows = load_suite("table4").rows
    return {row.name: (row.label, row.model, dict(row.options)) for row in rows} | SMALL


def count(name: str, wanted: list[tuple[str, str]], folder: Path) -> Iterator[tuple[Row, ...]]:
    """The rows of one network, those of a format and core together. wanted: formats and cores."""
    label, model_name, options = networks()[name]
    model = create_model(model_name, seed=0, **options)
    preprocessing = preprocessing_for(model.model_config, model)
    prepare_untrained(model, default_images(24, preprocessing))
    formats = tuple(dict.fromkeys(fmt for fmt, _ in wanted))
    bundle = export(
        model, folder / name, formats=formats, passes="none", preprocessing=preprocessing, name=label
    )
    import torch

    x = torch.from_numpy(next(iter(bundle.golden().inputs.values())))
    noise = natural_noise(x.shape[-2], x.shape[-1], torch.Generator().manual_seed(1))
    deploy = fuse(model, example_inputs=(x,))
    for fmt, core in wanted:
        yield tuple(_steps(bundle, deploy, {"noise": noise, "golden": x}, fmt, core))


def _steps(bundle: Bundle, deploy: Any, inputs: dict[str, Any], fmt: str, core: str) -> Iterator[Row]:
    """Fused, then default by default, then each other pass beside all defaults."""
    last = _row(bundle, fmt, core, FUSED, True, None, None, _lowered(deploy, inputs, fmt))
    yield last
    defaults = default_passes(fmt)
    tried = [(step, defaults[: i + 1]) for i, step in enumerate(defaults)]
    tried += [
        (step, tuple(name for name in PASS_NAMES if name in (*defaults, step)))
        for step in PASS_NAMES
        if step not in defaults
    ]
    for step, names in tried:
        applied = apply_passes(deploy, inputs, names, core=core)
        found = {entry.name: entry for entry in applied.entries}
        if step not in found:
            continue
        if not all(check.passed for check in applied.checks):
            raise SystemExit(f"{bundle.manifest.name}: the certificate of {step} does not pass")
        file = _lowered(applied.model, inputs, fmt)
        row = _row(bundle, fmt, core, step, step in defaults, last.instructions, found[step].max_error, file)
        yield row
        last = row if row.default else last


def _lowered(model: Any, inputs: dict[str, Any], fmt: str) -> Exported:
    return EXPORTERS[fmt](trace_program(model, inputs["golden"]))


def _row(
    bundle: Bundle,
    fmt: str,
    core: str,
    step: str,
    default: bool,
    before: int | None,
    max_error: float | None,
    file: Exported,
) -> Row:
    """Count one inference of `file` in the place of the bundle's own."""
    runtime = runtime_of(fmt)
    (request,) = emulated_rows(bundle.path, bundle.manifest.name, core_named(core), [runtime])
    sha256 = sha256_bytes(file.data)
    artifact = msgspec.structs.replace(request.row.artifact, sha256=sha256, bytes=len(file.data))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / f"model.{fmt}"
        path.write_bytes(file.data)
        row = msgspec.structs.replace(request.row, artifact=artifact)
        changed = msgspec.structs.replace(request, row=row, artifact_path=str(path))
        found = count_visit(changed, core_named(core), runner_folder("aarch64"), build_plugin())
    print(f"{bundle.path.name:20} {runtime} {core} {step:24} {found.total / 1e6:8.2f} M", flush=True)
    outside = None if file.nodes_outside is None else file.nodes_outside - file.outside_ops.get("getitem", 0)
    return Row(
        network=bundle.path.name,
        label=bundle.manifest.name,
        core=core,
        runtime=runtime,
        step=step,
        default=default,
        delegates=file.delegates,
        nodes_outside=outside,
        operators=sum(file.op_counts.values()) if file.delegates is None else None,
        macs=bundle.manifest.macs,
        before=found.total if before is None else before,
        instructions=found.total,
        classes=found.classes,
        output_error=found.output_error,
        max_error=max_error,
        artifact_sha256=sha256,
    )


def render_markdown(table: Table) -> str:
    """A table a runtime and core: each network fused, after each pass, and what it gained."""
    lines = ["# What each deploy pass gains", "", NOTE]
    shown = [name for name in CLASSES if any(row.classes[name] for row in table.rows)]
    for runtime, core in dict.fromkeys((row.runtime, row.core) for row in table.rows):
        rows = [row for row in table.rows if (row.runtime, row.core) == (runtime, core)]
        lowered = any(row.delegates is not None for row in rows)
        heads = ["network", "form", *(["delegates", "outside"] if lowered else ["operators"])]
        heads += ["M instructions", "gained", "over the bound", *shown]
        lines += ["", f"## {runtime}, {core} (emulated)", "", _line(heads)]
        lines.append(_line(["---"] * 2 + ["---:"] * (len(heads) - 2)))
        lines += [_line(_cells(row, lowered, shown)) for row in rows]
    return "\n".join(lines) + "\n"


def _cells(row: Row, lowered: bool, shown: list[str]) -> list[str]:
    first = row.step == FUSED
    form = row.step if first else f"{'' if row.default else 'or '}+ {row.step}"
    where = [str(row.delegates), str(row.nodes_outside)] if lowered else [str(row.operators)]
    gained = "" if first else f"{(row.before - row.instructions) / 1e6:.2f}"
    bound = f"{row.instructions / (row.macs / 4):.3f}"
    classes = [f"{row.classes[name] / 1e6:.2f}" for name in shown]
    return [
        row.label if first else "",
        form,
        *where,
        f"{row.instructions / 1e6:.2f}",
        gained,
        bound,
        *classes,
    ]


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def render_csv(table: Table) -> str:
    """One line a row, whole numbers."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    plain = [field for field in Row.__struct_fields__ if field != "classes"]
    writer.writerow(["emulated", *plain, *CLASSES])
    for row in table.rows:
        values = [getattr(row, field) for field in plain]
        words = [str(value).lower() if isinstance(value, bool) else value for value in values]
        writer.writerow(["true", *words, *(row.classes[name] for name in CLASSES)])
    return stream.getvalue()


def write(table: Table, folder: Path) -> None:
    """passes.json, .csv and .md."""
    atomic_write_bytes(
        folder / "passes.json", msgspec.json.format(msgspec.json.encode(table), indent=1) + b"\n"
    )
    atomic_write_text(folder / "passes.csv", render_csv(table))
    atomic_write_text(folder / "passes.md", render_markdown(table))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--network", action="append", choices=list(networks()))
    parser.add_argument("--core", action="append", dest="cores")
    parser.add_argument("--format", action="append", dest="formats", choices=list(EXPORTERS))
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    path, rows = options.output / "passes.json", ()
    if path.exists() and not options.fresh:
        rows = msgspec.json.decode(path.read_bytes(), type=Table).rows
    order = [runtime_of(fmt) for fmt in EXPORTERS], list(CORES), list(networks())

    def place(row: Row) -> tuple[int, ...]:
        cores = order[1] if row.core in order[1] else [*order[1], row.core]
        return order[0].index(row.runtime), cores.index(row.core), order[2].index(row.network)

    with tempfile.TemporaryDirectory() as name:
        for network in options.network or order[2]:
            done = {(row.network, row.runtime, row.core) for row in rows}
            wanted = [
                (fmt, core)
                for fmt in options.formats or EXPORTERS
                for core in options.cores or CORES
                if (network, runtime_of(fmt), core) not in done
            ]
            for found in count(network, wanted, Path(name)) if wanted else ():
                rows = tuple(sorted((*rows, *found), key=place))  # stable: steps stay in order
                write(Table(rows=rows), options.output)
    write(Table(rows=rows), options.output)
    print(render_markdown(Table(rows=rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
