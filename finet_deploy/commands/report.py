"""`finet-deploy report`."""

from __future__ import annotations

from pathlib import Path

import click

from finet_deploy.commands.console import Console, output_options

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
    from finet_deploy.api.report import report

    found = report(results, format="json" if console.json_output else form, apart=apart, out=output)
    for difference in found.differences:
        console.warn(f"different protocols, so no common table: {difference}")
    if output is None or found.format != "html":  # nobody reads a page here that is in the folder
        click.echo(found.text, nl=False)
    for path in found.files:
        console.note(f"wrote {path}")
