"""`finet-deploy bench`."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from finet_deploy.commands.console import Console, VisitProgress, output_options
from finet_deploy.errors import UsageError

if TYPE_CHECKING:
    from finet_deploy.bench.plan import BenchRow
    from finet_deploy.bench.records import Run
    from finet_deploy.devices.base import Device

EPILOG = """\b
Examples:
  finet-deploy bench --suite table4 --device host
  finet-deploy bench bundles/finet_large other=bundles/mine --preset normal --threads 2
  finet-deploy bench --resume runs/table4-normal-20260101T120000
"""


@click.command("bench", epilog=EPILOG)
@click.argument("bundles", nargs=-1, metavar="[[LABEL=]BUNDLE]...")
@click.option("--suite", metavar="NAME", help="Rows that ship with the tool: table4, table4-fusion.")
@click.option(
    "--device", "device_name", default="host", show_default=True, metavar="NAME", help="Where to run."
)
@click.option(
    "--preset", default="quick", show_default=True, metavar="NAME", help="demo, quick, normal or paper."
)
@click.option("--threads", type=int, default=1, show_default=True, help="Of each runtime.")
@click.option(
    "--runtimes", metavar="LIST", help="Comma-separated; default: all that every bundle has a file for."
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Run folder (default runs/<what>-<time>)."
)
@click.option(
    "--resume", type=click.Path(path_type=Path), metavar="DIR", help="Complete the run in this folder."
)
@click.option(
    "--bundles-dir", type=click.Path(path_type=Path), default=Path("bundles"), show_default=True,
    help="Where a suite's bundles are, or are exported to.",
)  # fmt: skip
@click.option("--mixed-fusion", is_flag=True, help="Fusion is what is compared: fused beside unfused rows.")
@click.option("--keep-going", is_flag=True, help="Exit 0 also when a visit was invalid.")
@output_options
def command(
    bundles: tuple[str, ...],
    suite: str | None,
    device_name: str,
    preset: str,
    threads: int,
    runtimes: str | None,
    output: Path | None,
    resume: Path | None,
    bundles_dir: Path,
    mixed_fusion: bool,
    keep_going: bool,
    console: Console,
) -> int:
    """Measure bundles on a device: rotated rounds, a fresh process a visit, paired ratios with intervals.

    The first row is the baseline. An A/A row (the same file under two names) shows what is noise.
    """
    from finet_deploy.bench.records import check_new
    from finet_deploy.bench.run import resume_bench, run_bench
    from finet_deploy.bench.settings import load_preset, load_suite

    device = _device(device_name)
    if resume is not None:
        if bundles or suite or output:
            raise UsageError(
                "--resume goes on with the job in its folder", do="leave bundles, --suite and -o out"
            )
        with VisitProgress(console) as progress:
            run = resume_bench(resume, device=device, progress=progress)
        return _finish(run, keep_going, console)
    load_preset(preset)
    if threads < 1:
        raise UsageError(f"--threads {threads} is not positive", do="give 1 or more")
    if bool(bundles) == bool(suite):
        raise UsageError("bundles or a suite: give one of them", do="see `finet-deploy bench --help`")
    out = output or _default_output(suite or "bundles", preset)
    check_new(out)
    rows, mixed = _named_rows(bundles), mixed_fusion
    if suite is not None:
        from finet_deploy.commands.suites import suite_rows

        chosen = load_suite(suite)
        rows, mixed = suite_rows(chosen, bundles_dir, console), mixed or chosen.mixed_fusion
    with VisitProgress(console) as progress:
        run = run_bench(
            rows,
            device=device,
            out=out,
            preset=preset,
            threads=threads,
            runtimes=[name.strip() for name in runtimes.split(",")] if runtimes else None,
            suite=suite,
            mixed_fusion=mixed,
            progress=progress,
        )
    return _finish(run, keep_going, console)


def _device(name: str) -> Device:
    from finet_deploy.devices.host import HostDevice

    if name != "host":
        raise UsageError(
            f"unknown device {name!r}", do="use host: this release measures on this machine only"
        )
    return HostDevice()


def _named_rows(bundles: tuple[str, ...]) -> list[BenchRow]:
    from finet_deploy.bench.plan import BenchRow

    rows = []
    for text in bundles:
        label, separator, path = text.partition("=")
        rows.append(BenchRow(Path(path), label) if separator and label else BenchRow(Path(text)))
    return rows


def _default_output(what: str, preset: str) -> Path:
    return Path("runs") / f"{what}-{preset}-{datetime.now(timezone.utc):%Y%m%dT%H%M%S}"


def _finish(run: Run, keep_going: bool, console: Console) -> int:
    from finet_deploy.bench.summary import summarise
    from finet_deploy.report import render_markdown, run_object, write_report

    paths = write_report([run], run.folder)
    console.result(render_markdown([run]))
    console.document(run_object(run))
    invalid = [item for comparison in summarise(run) for row in comparison.all_rows for item in row.invalid]
    for item in invalid:
        console.warn(f"invalid: {item.row}, round {item.round + 1}: {item.reason}")
    console.note(f"records  {run.folder}")
    console.note(f"tables   {', '.join(str(path) for path in paths)}")
    console.note(
        f"bundles  {', '.join(sorted({str((run.folder / row.bundle).resolve()) for row in run.job.rows}))}"
    )
    return 1 if invalid and not keep_going else 0
