"""`finet-deploy bench`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click

from finet_deploy.commands.console import Console, VisitProgress, output_options
from finet_deploy.errors import FinetDeployError, UsageError

if TYPE_CHECKING:
    from finet_deploy.bench.plan import BenchRow
    from finet_deploy.bench.records import Run

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
    runner: str | None,
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
    from finet_deploy.commands.bench_devices import DeviceOptions, device_names, open_device

    names = device_names(devices or ("host",), console)
    if resume is not None:
        if bundles or suite or output:
            raise UsageError(
                "--resume goes on with the job in its folder", do="leave bundles, --suite and -o out"
            )
    else:
        output = _checked_output(bundles, suite, preset, threads, output, new=len(names) == 1)
    suite = None if resume else suite
    if len(names) > 1:
        _rows(bundles, suite, bundles_dir, console)  # a suite is exported once, not by each process
        return _several(names, output, keep_going, console)
    options = DeviceOptions(
        runner=runner or _stored_runner(resume),
        emulated=emulated,
        pinned=not unpinned,
        clean=clean,
        apk=apk,
    )
    with open_device(names[0], options, console) as device, VisitProgress(console) as progress:
        from finet_deploy.bench.run import resume_bench, run_bench

        device.info()  # a phone that is not there is told before minutes of exporting
        if output is None:
            run = resume_bench(cast(Path, resume), device=device, progress=progress)
        else:
            rows, mixed = _rows(bundles, suite, bundles_dir, console)
            run = run_bench(
                rows,
                device=device,
                out=output,
                preset=preset,
                threads=threads,
                runtimes=[name.strip() for name in runtimes.split(",")] if runtimes else None,
                suite=suite,
                mixed_fusion=mixed or mixed_fusion,
                mixed_precision=mixed_precision,
                progress=progress,
            )
    return _finish([run], run.folder, keep_going, console)


def _stored_runner(resume: Path | None) -> str | None:
    """The runner that a run was started with."""
    from finet_deploy.bench.records import read_job

    return read_job(resume).runner if resume else None


def _checked_output(
    bundles: tuple[str, ...],
    suite: str | None,
    preset: str,
    threads: int | None,
    output: Path | None,
    *,
    new: bool,
) -> Path:
    """The run folder. Whatever can be known to be wrong is said before minutes of exporting."""
    from finet_deploy.bench.records import check_new
    from finet_deploy.bench.settings import load_preset

    load_preset(preset)
    if threads is not None and threads < 1:
        raise UsageError(f"--threads {threads} is not positive", do="give 1 or more")
    if bool(bundles) == bool(suite):
        raise UsageError("bundles or a suite: give one of them", do="see `finet-deploy bench --help`")
    out = output or _default_output(suite or "bundles", preset)
    if new:
        check_new(out)
    return out


def _rows(
    bundles: tuple[str, ...], suite: str | None, bundles_dir: Path, console: Console
) -> tuple[list[BenchRow], bool]:
    """The rows, and whether they are fused to different degrees on purpose."""
    from finet_deploy.bench.settings import load_suite

    if suite is None:
        return _named_rows(bundles), False
    from finet_deploy.commands.suites import suite_rows

    chosen = load_suite(suite)
    return suite_rows(chosen, bundles_dir, console), chosen.mixed_fusion


def _several(names: tuple[str, ...], output: Path | None, keep_going: bool, console: Console) -> int:
    """Each device in a process of its own, with this command line but for device and folder; then one table."""
    from finet_deploy.commands.bench_devices import device_folder, measure_each
    from finet_deploy.report import load_runs

    context = click.get_current_context()
    out = output or cast(Path, context.params["resume"])
    folders = {name: device_folder(out, name) for name in names}
    if len(set(folders.values())) < len(names):
        raise UsageError("two of these devices would share a folder", do="measure them one after another")
    commands = {
        name: _command_line(context, name, folder, new=output is not None) for name, folder in folders.items()
    }
    statuses = measure_each(commands, console)
    failed = [name for name, status in statuses.items() if status != 0]
    measured = [folder for folder in folders.values() if (folder / "records.jsonl").exists()]
    if not measured:
        raise FinetDeployError("no device was measured", where=str(out), do="see the messages above")
    for name in failed:
        console.warn(
            f"{name}: failed; go on with: finet-deploy bench --device {name} --resume {folders[name]}"
        )
    status = _finish(load_runs(measured), out, keep_going, console)
    return 1 if failed else status


def _command_line(context: click.Context, name: str, folder: Path, *, new: bool) -> list[str]:
    """This command line for one device, into or out of its own folder."""
    line = ["bench", "--device", name, "-o" if new else "--resume", str(folder)]
    for option in context.command.params:
        value = context.params.get(str(option.name))
        if option.name in ("devices", "output", "resume", "json_output") or value in (None, False, ()):
            continue
        if isinstance(option, click.Argument):
            line += [str(item) for item in value]
        elif value is True:
            line.append(option.opts[0])
        else:
            line += [option.opts[0], str(value)]
    return line


def _named_rows(bundles: tuple[str, ...]) -> list[BenchRow]:
    from finet_deploy.bench.plan import BenchRow
    from finet_deploy.commands.labels import labelled_bundle

    return [BenchRow(*labelled_bundle(text)) for text in bundles]


def _default_output(what: str, preset: str) -> Path:
    return Path("runs") / f"{what}-{preset}-{datetime.now(timezone.utc):%Y%m%dT%H%M%S}"


def _finish(runs: Sequence[Run], out: Path, keep_going: bool, console: Console) -> int:
    from finet_deploy.bench.summary import summarise
    from finet_deploy.report import render_markdown, run_object, write_report

    paths = write_report(runs, out)
    console.result(render_markdown(runs))
    console.document(run_object(runs[0]) if len(runs) == 1 else [run_object(run) for run in runs])
    invalid = [
        (run.job.device.name, item)
        for run in runs
        for comparison in summarise(run)
        for row in comparison.all_rows
        for item in row.invalid
    ]
    for device, item in invalid:
        console.warn(f"invalid: {item.row} on {device}, round {item.round + 1}: {item.reason}")
    bundles = {str((run.folder / row.bundle).resolve()) for run in runs for row in run.job.rows}
    console.note(f"records  {', '.join(str(run.folder) for run in runs)}")
    console.note(f"tables   {paths[0]}, and beside it {len(paths) - 1} files in other formats")
    console.note(f"bundles  {', '.join(sorted(bundles))}")
    return 1 if invalid and not keep_going else 0
