"""What each deploy pass gains: ARM instructions, delegates and operators outside them, network by network.

    python tests/benchmarks/deploy_passes.py [--network finet_large_g4] [--core cortex-a76] -o results/cost

Every network is exported once without passes, and then once more after each pass that changed it, all passes before it
included, for each core. All files are run under emulation and must reproduce the golden outputs of the network that was
not rewritten. Counts, not speeds. What was counted is kept in OUTPUT/passes.json; `--fresh` counts it again.
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from finet_deploy.bench.settings import load_suite
from finet_deploy.export import export
from finet_deploy.export.executorch import to_pte
from finet_deploy.export.exported import Exported, trace_program
from finet_deploy.files import atomic_write_bytes, atomic_write_text, sha256_bytes
from finet_deploy.fuse import fuse
from finet_deploy.images import default_images, natural_noise, preprocessing_for
from finet_deploy.passes import apply_passes, default_passes
from finet_deploy.runner.counting import CLASSES, build_plugin, count_visit, emulated_rows
from finet_deploy.runner.emulate import core as core_named
from finet_deploy.runner.folder import runner_folder
from finet_deploy.untrained import prepare_untrained
from finet_deploy.zoo import create_model

CORES = ("cortex-a76", "cortex-a53")
SMALL = {
    "finet_small_g4": ("Finet-small, G=4, without SE", "finet_small", {"num_groups": 4, "se": False}),
    "finet_small_g4_se": ("Finet-small, G=4, with SE", "finet_small", {"num_groups": 4, "se": True}),
}
NOTE = (
    "ARM instructions of one inference in ExecuTorch, fp32, one thread, counted under emulation (qemu-user): a cost, "
    "not a speed. Each line has the passes of the lines above it too. `bound`: multiply-adds of the network as it was "
    "fused, four to an instruction. Weights are seeded."
)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One network on one core, with the passes up to and with `step` ("fused": none)."""

    network: str
    label: str
    core: str
    step: str
    delegates: int
    nodes_outside: int
    macs: int
    instructions: int
    classes: dict[str, int]
    output_error: float
    max_error: float | None
    artifact_sha256: str


class Table(msgspec.Struct, frozen=True, kw_only=True):
    """All rows. `emulated`: always."""

    schema_version: int = 1
    emulated: bool = True
    note: str = NOTE
    rows: tuple[Row, ...]


def networks() -> dict[str, tuple[str, str, dict[str, Any]]]:
    """Name -> label, model and options: the paper's Table 4, and Finet-small."""
    rows = load_suite("table4").rows
    return {row.name: (row.label, row.model, dict(row.options)) for row in rows} | SMALL


def count(name: str, cores: list[str], folder: Path) -> Iterator[Row]:
    """The rows of one network."""
    label, model_name, options = networks()[name]
    model = create_model(model_name, seed=0, **options)
    preprocessing = preprocessing_for(model.model_config, model)
    prepare_untrained(model, default_images(24, preprocessing))
    bundle = export(
        model, folder / name, formats=("pte",), passes="none", preprocessing=preprocessing, name=label
    )
    x = next(iter(bundle.golden().inputs.values()))
    inputs = {"noise": _noise(x.shape), "golden": _tensor(x)}
    deploy = fuse(model, example_inputs=(inputs["golden"],))
    for core in cores:
        yield _row(bundle, label, core, "fused", None, to_pte(trace_program(deploy, inputs["golden"])))
        done: list[str] = []
        for step in default_passes("pte"):
            done.append(step)
            applied = apply_passes(deploy, inputs, done, core=core)
            if not applied.entries or applied.entries[-1].name != step:
                continue
            if not all(check.passed for check in applied.checks):
                raise SystemExit(f"{name}: the certificate of {step} does not pass")
            pte = to_pte(trace_program(applied.model, inputs["golden"]))
            yield _row(bundle, label, core, step, applied.entries[-1].max_error, pte)


def _tensor(x: Any) -> Any:
    import torch

    return torch.from_numpy(x)


def _noise(shape: tuple[int, ...]) -> Any:
    import torch

    return natural_noise(shape[-2], shape[-1], torch.Generator().manual_seed(1))


def _row(bundle: Any, label: str, core: str, step: str, max_error: float | None, pte: Exported) -> Row:
    (request,) = emulated_rows(bundle.path, label, core_named(core), ["executorch"])
    sha256 = sha256_bytes(pte.data)
    artifact = msgspec.structs.replace(request.row.artifact, sha256=sha256, bytes=len(pte.data))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.pte"
        path.write_bytes(pte.data)
        row = msgspec.structs.replace(request.row, artifact=artifact)
        changed = msgspec.structs.replace(request, row=row, artifact_path=str(path))
        found = count_visit(changed, core_named(core), runner_folder("aarch64"), build_plugin())
    print(f"{bundle.path.name:20} {core} {step:24} {found.total / 1e6:8.2f} M", flush=True)
    return Row(
        network=bundle.path.name,
        label=label,
        core=core,
        step=step,
        delegates=pte.delegates or 0,
        nodes_outside=(pte.nodes_outside or 0) - pte.outside_ops.get("getitem", 0),
        macs=bundle.manifest.macs,
        instructions=found.total,
        classes=found.classes,
        output_error=found.output_error,
        max_error=max_error,
        artifact_sha256=sha256,
    )


def render_markdown(table: Table) -> str:
    """A table a core: each network fused, after each pass, and what it gained."""
    lines = ["# What each deploy pass gains", "", NOTE]
    for core in dict.fromkeys(row.core for row in table.rows):
        shown = [name for name in CLASSES if any(row.classes[name] for row in table.rows)]
        heads = [
            "network",
            "form",
            "delegates",
            "outside",
            "M instructions",
            "gained",
            "over the bound",
            *shown,
        ]
        lines += [
            "",
            f"## {core} (emulated)",
            "",
            _line(heads),
            _line(["---"] * 2 + ["---:"] * (len(heads) - 2)),
        ]
        before: Row | None = None
        for row in (row for row in table.rows if row.core == core):
            first = row.step == "fused"
            gained = (
                "" if first or before is None else f"{(before.instructions - row.instructions) / 1e6:.2f}"
            )
            cells = [row.label if first else "", row.step if first else f"+ {row.step}"]
            cells += [str(row.delegates), str(row.nodes_outside), f"{row.instructions / 1e6:.2f}", gained]
            cells += [f"{row.instructions / (row.macs / 4):.3f}"]
            lines.append(_line([*cells, *(f"{row.classes[item] / 1e6:.2f}" for item in shown)]))
            before = row
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def render_csv(table: Table) -> str:
    """One line a row, whole numbers."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    plain = [field for field in Row.__struct_fields__ if field != "classes"]
    writer.writerow(["emulated", *plain, *CLASSES])
    for row in table.rows:
        writer.writerow(["true", *(getattr(row, f) for f in plain), *(row.classes[name] for name in CLASSES)])
    return stream.getvalue()


def write(table: Table, folder: Path) -> None:
    atomic_write_bytes(
        folder / "passes.json", msgspec.json.format(msgspec.json.encode(table), indent=1) + b"\n"
    )
    atomic_write_text(folder / "passes.csv", render_csv(table))
    atomic_write_text(folder / "passes.md", render_markdown(table))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--network", action="append", choices=list(networks()))
    parser.add_argument("--core", action="append", dest="cores")
    parser.add_argument("--fresh", action="store_true")
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    path, rows = options.output / "passes.json", ()
    if path.exists() and not options.fresh:
        rows = msgspec.json.decode(path.read_bytes(), type=Table).rows
    order = list(networks())
    with tempfile.TemporaryDirectory() as name:
        for network in options.network or order:
            cores = [
                core
                for core in options.cores or CORES
                if not any((row.network, row.core) == (network, core) for row in rows)
            ]
            if cores:
                rows = (*rows, *count(network, cores, Path(name)))
                rows = tuple(
                    sorted(rows, key=lambda row: order.index(row.network))
                )  # stable: steps stay in order
                write(Table(rows=rows), options.output)
    print(render_markdown(Table(rows=rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
