"""`finet-deploy profile`."""

from __future__ import annotations

from pathlib import Path

import click

from finet_deploy.commands.console import Console, output_options
from finet_deploy.commands.labels import labelled_bundle
from finet_deploy.errors import UsageError

EPILOG = """\b
Examples:
  finet-deploy profile bundles/finet_large
  finet-deploy profile bundles/finet_large --cost cortex-a76 -o results/profile
"""


@click.command("profile", epilog=EPILOG)
@click.argument("bundle", metavar="[LABEL=]BUNDLE")
@click.option(
    "--cost", "core", metavar="CORE",
    help="Count ARM instructions under emulation instead: cortex-a53, -a55, -a72, -a76, -a78 or cortex-x1.",
)  # fmt: skip
@click.option("--runtimes", metavar="LIST", help="executorch,onnxruntime (default: those the bundle has).")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR",
    help="Write profile.json, .csv, .md and a picture.",
)  # fmt: skip
@output_options
def command(
    bundle: str, core: str | None, runtimes: str | None, output: Path | None, console: Console
) -> None:
    """Where an inference spends its time, or its instructions, operator by operator."""
    from finet_deploy.export.bundle import read_bundle
    from finet_deploy.profile.emulated import profile_instructions
    from finet_deploy.profile.render import render_markdown

    names = [name.strip() for name in runtimes.split(",") if name.strip()] if runtimes is not None else None
    if names == []:
        raise UsageError("no runtime given", do="leave --runtimes out, or name some")
    path, label = labelled_bundle(bundle)
    read = read_bundle(path)
    assert core is not None
    with console.progress("profile", total=2) as step:
        profiles = profile_instructions(read, core_name=core, runtimes=names, label=label, progress=step)
    console.result(render_markdown(profiles))
