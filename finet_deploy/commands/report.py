"""`finet-deploy report`."""

from __future__ import annotations

from pathlib import Path

import click

from finet_deploy.commands.console import Console, output_options
from finet_deploy.errors import UsageError

EPILOG = """\b
Examples:
  finet-deploy report runs/table4-demo-20260101T120000
  finet-deploy report runs/* -o tables/
  finet-deploy report runs/mine --format csv
"""


@click.command("report", epilog=EPILOG)
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Folder for report.md and the CSV files."
)
@click.option("--format", "form", type=click.Choice(["md", "csv"]), default="md", show_default=True)
@output_options
def command(runs: tuple[Path, ...], output: Path | None, form: str, console: Console) -> None:
    """Tables from the run folders RUNS, made from their records alone."""
    from finet_deploy.report import load_runs, render_csv, render_markdown, run_object, write_report

    loaded = load_runs(runs)
    if output is not None and output.is_file():
        raise UsageError(
            "the output is a file, a folder is needed", where=str(output), do="choose another -o"
        )
    console.result(render_csv(loaded) if form == "csv" else render_markdown(loaded))
    console.document([run_object(run) for run in loaded])
    if output is not None:
        for path in write_report(loaded, output):
            console.note(f"wrote {path}")
