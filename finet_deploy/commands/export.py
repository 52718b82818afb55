"""`finet-deploy export`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from finet_deploy.commands.console import Console, output_options
from finet_deploy.commands.source import ModelOptions, Source, load_source, model_options
from finet_deploy.errors import UsageError

if TYPE_CHECKING:
    from finet_deploy.quantize import Calibration
    from finet_deploy.verify import Limits

DTYPES = {"fp32": "float32", "fp16": "float16", "int8": "int8"}

EPILOG = """\b
Examples:
  finet-deploy export finet_large --fuse --formats pte,onnx,ptl -o bundles/finet_large
  finet-deploy export trained.safetensors -o bundles/mine --images photos/
  finet-deploy export finet_large --dtype int8 --calibrate photos/ -o bundles/finet_large_int8
  finet-deploy export timm:mobilenetv3_small_075 --formats onnx -o bundles/peer
  finet-deploy export finet_large --core cortex-a53 -o bundles/for_small_cores
"""


@click.command("export", epilog=EPILOG)
@click.argument("source")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The bundle's folder.")
@click.option("--formats", help="Comma-separated (default pte,onnx,ptl; fp16: pte; int8: pte,onnx).")
@click.option(
    "--dtype", type=click.Choice(list(DTYPES)), default="fp32", show_default=True, help="Of the files."
)
@click.option(
    "--calibrate", metavar="FOLDER|NAME",
    help="int8: your images, or photos or digits (default: the package's photographs).",
)  # fmt: skip
@click.option(
    "--min-sqnr", type=click.FloatRange(0, min_open=True), metavar="DB",
    help="fp16, int8: least signal-to-noise ratio on photographs (int8: held-out images).",
)  # fmt: skip
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
    formats: str | None,
    dtype: str,
    calibrate: str | None,
    min_sqnr: float | None,
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
    from finet_deploy.export.request import PRECISIONS
    from finet_deploy.passes import parse_passes
    from finet_deploy.passes.kernels import kernels as check_core

    int8 = dtype == "int8"
    _refuse_misplaced(dtype, calibrate, min_sqnr)
    wanted = PRECISIONS[DTYPES[dtype]] if formats is None else parse_formats(formats)
    parse_passes(passes, ())
    check_core(core)
    loaded = load_source(source, options, console)
    calibration = calibration_for(calibrate, loaded, options, console) if int8 else None
    with console.progress("export", total=2 * len(wanted) + 4 + int8) as step:
        bundle = export(
            loaded.model,
            output,
            formats=wanted,
            fuse_model=fuse_model,
            passes=passes,
            core=core,
            raw_pixels=raw_pixels,
            inputs=loaded.inputs if calibration is None else None,
            preprocessing=loaded.preprocessing,
            dtype=DTYPES[dtype],
            calibration=calibration,
            limits=_limits(dtype, min_sqnr),
            overwrite=overwrite,
            progress=step,
        )
    if bundle.manifest.quantization is not None and bundle.manifest.quantization.fp32_layers:
        console.warn(f"left in fp32: {', '.join(bundle.manifest.quantization.fp32_layers)}")
    console.document(bundle.to_json_object())
    for line in bundle.summary_lines():
        console.result(line)


def _refuse_misplaced(dtype: str, calibrate: str | None, min_sqnr: float | None) -> None:
    if dtype != "int8" and calibrate is not None:
        raise UsageError("--calibrate is for int8", do="add --dtype int8, or leave it out")
    if dtype == "fp32" and min_sqnr is not None:
        raise UsageError("--min-sqnr is for int8 and fp16", do="add --dtype int8, or leave it out")


def calibration_for(
    calibrate: str | None, loaded: Source, options: ModelOptions, console: Console
) -> Calibration:
    """The images given; else those of --images; else the package's photographs, which is said."""
    from finet_deploy.quantize import load_calibration

    source = calibrate if calibrate is not None or options.images is None else str(options.images)
    found = load_calibration(source, loaded.preprocessing, seed=options.seed)
    if found.built_in:
        console.warn(
            "int8 ranges from the package's photographs: give --calibrate FOLDER with images of yours"
        )
    console.note(f"calibrate on {len(found.images)} images of {found.source}, {len(found.held_out)} held out")
    return found


def _limits(dtype: str, min_sqnr: float | None) -> Limits | None:
    from finet_deploy.verify import Limits

    return None if min_sqnr is None else Limits().with_sqnr_db(DTYPES[dtype], min_sqnr)
