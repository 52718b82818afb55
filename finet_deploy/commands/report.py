"""`finet-deploy report`."""

from __future__ import annotations

from pathlib import Path

import click

from finet_deploy.commands.console import Console, output_options
from finet_deploy.errors import UsageError

FORMATS = (
    "md",
    "csv",
    "tex",
    "json",
    "html",
)  # the keys of `finet_deploy.report.FORMATS`, which is slow to import

EPILOG = """\b
Examples:
  finet-deploy report runs/table4-demo-20260101T120000
  finet-deploy report runs/* -o tables/
  finet-deploy report runs/mine --format csv
  finet-deploy report runs/mine --format tex > table.tex
  finet-deploy report runs/* --format html > page.html
  finet-deploy report runs/* --format html -o site/
"""


@click.command("report", epilog=EPILOG)
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help="Folder for the report in every format; with html, its plots as SVG and PNG too.",
)
@click.option(
    "--format",
    "form",
    type=click.Choice(FORMATS),
    default="md",
    show_default=True,
    help="What is printed.",
)
@click.option(
    "--apart",
    is_flag=True,
    help="Runs of several devices by different protocols: tables of their own for each.",
)
@output_options
def command(results: tuple[Path, ...], output: Path | None, form: str, apart: bool, console: Console) -> None:
    """Tables, or a page with plots, from the run folders RESULTS, made from their records alone."""
    from finet_deploy.report import FORMATS as formats
    from finet_deploy.report import load_runs, protocol_differences, write_figures, write_report

    runs = load_runs(results, apart=apart)
    for difference in protocol_differences(runs):
        console.warn(f"different protocols, so no common table: {difference}")
    if output is not None and output.is_file():
        raise UsageError(
            "the output is a file, a folder is needed", where=str(output), do="choose another -o"
        )
    paths: list[Path] = []
    if output is not None:
        paths += write_figures(runs, output / "figures") if form == "html" else []
        paths += write_report(runs, output)
    # Nobody reads a page in a terminal when it is in the folder.
    if output is None or form != "html" or console.json_output:
        click.echo(formats["json" if console.json_output else form].render(runs), nl=False)
    for path in paths:
        console.note(f"wrote {path}")
