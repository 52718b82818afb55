"""`finet-deploy export`."""

from __future__ import annotations

from pathlib import Path

import click

from finet_deploy.commands.console import Console, output_options
from finet_deploy.commands.source import ModelOptions, load_source, model_options

EPILOG = """\b
Examples:
  finet-deploy export finet_large --fuse --formats pte,onnx,ptl -o bundles/finet_large
  finet-deploy export trained.safetensors -o bundles/mine --images photos/
  finet-deploy export timm:mobilenetv3_small_075 --formats onnx -o bundles/peer
"""


@click.command("export", epilog=EPILOG)
@click.argument("source")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The bundle's folder.")
@click.option("--formats", default="pte,onnx,ptl", show_default=True, help="Comma-separated.")
@click.option(
    "--fuse/--no-fuse", "fuse_model", default=True, show_default=True, help="Fold normalization first."
)
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is already there.")
@model_options
@output_options
def command(
    source: str,
    output: Path,
    formats: str,
    fuse_model: bool,
    overwrite: bool,
    options: ModelOptions,
    console: Console,
) -> None:
    """Fuse SOURCE (a network's name or a checkpoint), prove it, and write it as one bundle.

    Every file is read back and run by its own runtime before the bundle appears under its name.
    """
    from finet_deploy.export import export, parse_formats

    wanted = parse_formats(formats)
    loaded = load_source(source, options, console)
    with console.progress("export", total=2 * len(wanted) + 3) as step:
        bundle = export(
            loaded.model,
            output,
            formats=wanted,
            fuse_model=fuse_model,
            inputs=loaded.inputs,
            preprocessing=loaded.preprocessing,
            overwrite=overwrite,
            progress=step,
        )
    console.document(bundle.to_json_object())
    for line in bundle.summary_lines():
        console.result(line)
