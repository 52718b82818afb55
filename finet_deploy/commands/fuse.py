"""`finet-deploy fuse`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from finet_deploy.commands.console import Console, output_options
from finet_deploy.commands.source import ModelOptions, load_source, model_options

if TYPE_CHECKING:
    from finet_deploy.fuse import FuseReport

EPILOG = """\b
Examples:
  finet-deploy fuse finet_large --se
  finet-deploy fuse trained.safetensors -o fused.safetensors
  finet-deploy fuse weights.pth --model resnet18_fbn --num-classes 100 -o fused.safetensors
"""


@click.command("fuse", epilog=EPILOG)
@click.argument("source")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the deploy form (.safetensors).")
@model_options
@output_options
def command(source: str, output: Path | None, options: ModelOptions, console: Console) -> None:
    """Fold every normalization of SOURCE (a network's name or a checkpoint) into convolutions.

    Prints what was folded, and what was not and why.
    """
    from finet_deploy.checkpoint import save_checkpoint
    from finet_deploy.fuse import fuse

    loaded = load_source(source, options, console)
    fused = fuse(loaded.model, example_inputs=(next(iter(loaded.inputs.values())),))
    report: FuseReport = fused.fuse_report  # type: ignore[assignment]
    if output is not None:
        save_checkpoint(fused, output, config=loaded.config, preprocessing=loaded.preprocessing)
    for item in report.folded:
        console.detail(f"folded {item.kind} {item.path} into {item.into}")
    rewritten = f", {len(report.rewritten)} blocks rewritten" if report.rewritten else ""
    console.result(f"{loaded.config.title}: {len(report.folded)} folded, {len(report.kept)} left{rewritten}")
    for kept in report.kept:
        console.result(f"left {kept.path} ({kept.kind}): {kept.reason}")
    if output is not None:
        console.result(f"wrote {output}")
    console.document({"report": report.to_json_object(), "output": None if output is None else str(output)})
