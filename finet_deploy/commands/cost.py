"""`finet-deploy cost`."""

from __future__ import annotations

from pathlib import Path

import click

from finet_deploy.commands.console import Console, output_options
from finet_deploy.commands.labels import labelled_bundle
from finet_deploy.errors import UsageError

EPILOG = """\b
Examples:
  finet-deploy cost bundles/finet_large --core cortex-a76
  finet-deploy cost fused=bundles/a unfused=bundles/b --core cortex-a53 --core cortex-a76 --runtimes executorch
"""


@click.command("cost", epilog=EPILOG)
@click.argument("bundles", nargs=-1, required=True, metavar="[LABEL=]BUNDLE...")
@click.option(
    "--core", "cores", multiple=True, default=("cortex-a76",), show_default=True, metavar="NAME",
    help="cortex-a53, -a55, -a72, -a76, -a78 or cortex-x1; may be given more than once.",
)  # fmt: skip
@click.option("--runtimes", metavar="LIST", help="executorch,onnxruntime (default: those the bundle has).")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Write cost.json, .csv and .md."
)
@output_options
def command(
    bundles: tuple[str, ...],
    cores: tuple[str, ...],
    runtimes: str | None,
    output: Path | None,
    console: Console,
) -> None:
    """Count the ARM instructions of one inference, by class, under emulation: a cost, not a speed.

    The same command gives the same count. Needs Debian 12's qemu-user and the runner for aarch64.
    """
    from finet_deploy.runner.cost import measure_cost, render_markdown, write_tables

    names = [name.strip() for name in runtimes.split(",") if name.strip()] if runtimes is not None else None
    if names == []:
        raise UsageError("no runtime given", do="leave --runtimes out, or name some")
    pairs = [labelled_bundle(text) for text in bundles]
    with console.progress("count", total=len(pairs) * len(set(cores)) * len(names or (1, 2))) as step:
        table = measure_cost(pairs, cores=cores, runtimes=names, progress=step)
    console.result(render_markdown(table))
    if console.json_output:
        import msgspec

        console.document(msgspec.to_builtins(table))
    if output is not None:
        console.note(f"tables   {', '.join(str(path) for path in write_tables(table, output))}")
