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
  finet-deploy export finet_large --core cortex-a53 -o bundles/for_small_cores
"""


@click.command("export", epilog=EPILOG)
@click.argument("source")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The bundle's folder.")
@click.option("--formats", default="pte,onnx,ptl", show_default=True, help="Comma-separated.")
@click.option(
    "--fuse/--no-fuse", "fuse_model", default=True, show_default=True, help="Fold normalization first."
)
@click.option(
    "--passes",
    default="default",
    show_default=True,
    metavar="LIST",
    help="Exact deploy passes: default, none, or names; a name with a - is left out: default,-split-pixels.",
)
@click.option(
    "--core",
    default="cortex-a76",
    show_default=True,
    metavar="NAME",
    help="Core type for whose kernels the passes choose shapes: cortex-a53, -a55, -a72, -a76, -a78 or cortex-x1.",
)
@click.option(
    "--raw-pixels",
    is_flag=True,
    help="The files take pixels from 0 to 255: the standardization goes into the network.",
)
@click.option("--overwrite", is_flag=True, help="Replace a bundle that is already there.")
@model_options
@output_options
def command(
    source: str,
    output: Path,
    formats: str,
    fuse_model: bool,
    passes: str,
    core: str,
    raw_pixels: bool,
    overwrite: bool,
    options: ModelOptions,
    console: Console,
) -> None:
    """Fuse SOURCE (a network's name or a checkpoint), prove it, and write it as one bundle.

    Every file is read back and run by its own runtime before the bundle appears under its name.
    """
    from finet_deploy.export import export, parse_formats
    from finet_deploy.passes import parse_passes
    from finet_deploy.passes.kernels import kernels as check_core

    wanted = parse_formats(formats)
    parse_passes(passes, ())
    check_core(core)
    loaded = load_source(source, options, console)
    with console.progress("export", total=2 * len(wanted) + 4) as step:
        bundle = export(
            loaded.model,
            output,
            formats=wanted,
            fuse_model=fuse_model,
            passes=passes,
            core=core,
            raw_pixels=raw_pixels,
            inputs=loaded.inputs,
            preprocessing=loaded.preprocessing,
            overwrite=overwrite,
            progress=step,
        )
    console.document(bundle.to_json_object())
    for line in bundle.summary_lines():
        console.result(line)
