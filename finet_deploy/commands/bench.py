"""`finet-deploy bench`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from finet_deploy.commands.console import Console, output_options
from finet_deploy.commands.labels import labelled_bundle

if TYPE_CHECKING:
    from finet_deploy.api import BenchResult

EPILOG = """\b
Examples:
  finet-deploy bench --suite table4 --device host
  finet-deploy bench bundles/finet_large other=bundles/mine --preset normal --threads 2
  finet-deploy bench --suite table4 --device R5CT10XXXXX
  finet-deploy bench --suite table4 --device all
  finet-deploy bench --resume runs/table4-normal-20260101T120000
"""


@click.command("bench", epilog=EPILOG)
@click.argument("bundles", nargs=-1, metavar="[[LABEL=]BUNDLE]...")
@click.option("--suite", metavar="NAME", help="Rows that ship with the tool: table4, table4-fusion.")
@click.option(
    "--device", "devices", multiple=True, metavar="NAME",
    help="host (the default), an adb serial, tcp:HOST:PORT, usb:SERIAL, or all phones. Repeatable.",
)  # fmt: skip
@click.option(
    "--runner",
    type=click.Choice(["python", "native", "app"]),
    help="Default: python; phones: native, or app.",
)
@click.option(
    "--apk", type=click.Path(path_type=Path), metavar="FILE",
    help="With --runner app: this APK instead of the one that was built or came with the package.",
)  # fmt: skip
@click.option(
    "--preset", default="quick", show_default=True, metavar="NAME",
    help="smoke, demo, quick, normal or paper.",
)  # fmt: skip
@click.option("--threads", type=int, help="Of each runtime; default: 1, on a phone its big cores.")
@click.option(
    "--runtimes",
    "--runtime",
    metavar="LIST",
    help="Comma-separated; default: all that every bundle has a file for.",
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
@click.option("--mixed-precision", is_flag=True, help="Precision is what is compared: int8 beside fp32 rows.")
@click.option("--keep-going", is_flag=True, help="Exit 0 also when a visit was invalid.")
@click.option("--unpinned", is_flag=True, help="Phones: let the scheduler choose the cores.")
@click.option("--emulated", is_flag=True, help="Phones: this one is emulated; every table says so.")
@click.option(
    "--clean", is_flag=True, help="Phones: remove our folder at the end, and with --runner app the app."
)
@output_options
def command(
    bundles: tuple[str, ...],
    suite: str | None,
    devices: tuple[str, ...],
    runner: Literal["python", "native", "app"] | None,
    apk: Path | None,
    preset: str,
    threads: int | None,
    runtimes: str | None,
    output: Path | None,
    resume: Path | None,
    bundles_dir: Path,
    mixed_fusion: bool,
    mixed_precision: bool,
    keep_going: bool,
    unpinned: bool,
    emulated: bool,
    clean: bool,
    console: Console,
) -> int:
    """Measure bundles on a device: rotated rounds, a fresh process a visit, paired ratios with intervals.

    The first row is the baseline. An A/A row (the same file under two names) shows what is noise. Several devices are
    measured at the same time, each into a folder of its own below the run's.
    """
    from finet_deploy.api.bench import bench
    from finet_deploy.bench.plan import BenchRow

    result = bench(
        [BenchRow(*labelled_bundle(text)) for text in bundles],
        suite=suite,
        device=devices or "host",
        runner=runner,
        apk=apk,
        preset=preset,
        threads=threads,
        runtimes=[name.strip() for name in runtimes.split(",")] if runtimes else None,
        out=output,
        resume=resume,
        bundles_dir=bundles_dir,
        mixed_fusion=mixed_fusion,
        mixed_precision=mixed_precision,
        pinned=not unpinned,
        emulated=emulated,
        clean=clean,
        listener=console,
    )
    return _finish(result, keep_going, console)


def _finish(result: BenchResult, keep_going: bool, console: Console) -> int:
    console.result(result.text)
    objects = result.to_json_object()
    console.document(objects[0] if len(objects) == 1 else objects)
    for device, item in result.invalid:
        console.warn(f"invalid: {item.row} on {device}, round {item.round + 1}: {item.reason}")
    bundles = {str((run.folder / row.bundle).resolve()) for run in result.runs for row in run.job.rows}
    console.note(f"records  {', '.join(str(run.folder) for run in result.runs)}")
    files = result.files
    console.note(f"tables   {files[0]}, and beside it {len(files) - 1} files in other formats")
    console.note(f"bundles  {', '.join(sorted(bundles))}")
    return 1 if result.failed or (result.invalid and not keep_going) else 0
