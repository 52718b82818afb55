"""`bench`: measure bundles on devices. The command of that name calls it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from finet_deploy.api.listener import Listener, Silent, VisitProgress
from finet_deploy.errors import FinetDeployError, UsageError

if TYPE_CHECKING:
    from finet_deploy.bench.plan import BenchRow
    from finet_deploy.bench.protocol import Settings
    from finet_deploy.bench.records import Run
    from finet_deploy.bench.summary import Comparison, InvalidVisit

__all__ = ["BenchResult", "Bundles", "bench"]

Bundles = Mapping[str, Path | str] | Sequence["Path | str | BenchRow"]


@dataclass(frozen=True)
class BenchResult:
    """What was measured. runs: one a device. folder: of the run, or of all devices' runs. files: the tables there.

    failed: devices that were given up, and the folders from which they can be gone on with.
    """

    runs: tuple[Run, ...]
    folder: Path
    files: tuple[Path, ...]
    failed: Mapping[str, Path]

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """The figures of all tables, run by run: rates, ratios, intervals, verdicts."""
        from finet_deploy.bench.summary import summarise

        return tuple(comparison for run in self.runs for comparison in summarise(run))

    @property
    def invalid(self) -> tuple[tuple[str, InvalidVisit], ...]:
        """Visits that do not count, each with its device."""
        from finet_deploy.bench.summary import summarise

        return tuple(
            (run.job.device.name, visit)
            for run in self.runs
            for comparison in summarise(run)
            for row in comparison.all_rows
            for visit in row.invalid
        )

    @property
    def passed(self) -> bool:
        """Every visit counted and no device failed."""
        return not self.invalid and not self.failed

    @property
    def text(self) -> str:
        """The tables in Markdown."""
        from finet_deploy.report import render_markdown

        return render_markdown(self.runs)

    def to_json_object(self) -> list[dict[str, Any]]:
        """Every run as plain dicts and lists."""
        from finet_deploy.report import run_object

        return [run_object(run) for run in self.runs]


def bench(
    bundles: Bundles = (),
    *,
    suite: str | None = None,
    device: str | Sequence[str] = "host",
    runner: Literal["python", "native", "app"] | None = None,
    apk: Path | str | None = None,
    preset: str | Settings = "quick",
    threads: int | None = None,
    runtimes: Sequence[str] | None = None,
    out: Path | str | None = None,
    resume: Path | str | None = None,
    bundles_dir: Path | str = "bundles",
    mixed_fusion: bool = False,
    mixed_precision: bool = False,
    pinned: bool = True,
    emulated: bool = False,
    clean: bool = False,
    listener: Listener | None = None,
) -> BenchResult:
    """Measure bundles: rotated rounds, a fresh process a visit, paired ratios with intervals. Records are in `out`.

    bundles: folders, or label -> folder; the first is the baseline. suite: rows that ship with the tool instead, whose
    bundles are exported into `bundles_dir` where they are not there. device: `host`, an adb serial, tcp:HOST:PORT,
    usb:SERIAL, or `all` phones; several are measured at once, each into a folder of its own below `out`. runner:
    `python` on the host, `native` on phones, unless said otherwise; `app` with the APK `apk`. preset: a name
    (`smoke`, `demo`, `quick`, `normal`, `paper`) or, on one device, settings of yours. threads: of each runtime; 1, on
    a phone as many as big cores. runtimes: all that every bundle has a file for. out: a new folder, by default
    `runs/<what>-<preset>-<time>`. resume: complete the run in this folder instead. mixed_fusion, mixed_precision: allow
    rows that differ in just that in one table. pinned: on a phone, to the big cores. emulated: the phone is an emulated
    one, and every table says so. clean: remove our folder (and the app) from the phone. listener: is told what goes on.

    An invalid visit does not raise: see `BenchResult.invalid`. Raises UsageError for a wrong call, as far as it can be
    known before anything is exported or written; FinetDeployError for a bundle that cannot be read, a device that is
    not there, or when no device could be measured.
    """
    asked = _Asked(
        rows=_rows_of(bundles), suite=suite, runner=runner, apk=None if apk is None else Path(apk), preset=preset,
        threads=threads, runtimes=runtimes, bundles_dir=Path(bundles_dir), mixed_fusion=mixed_fusion,
        mixed_precision=mixed_precision, pinned=pinned, emulated=emulated, clean=clean, listener=listener or Silent(),
    )  # fmt: skip
    from finet_deploy.api.devices import device_names
    from finet_deploy.report import write_report

    names = device_names((device,) if isinstance(device, str) else device, asked.listener)
    if resume is not None:
        if asked.rows or suite or out:
            raise UsageError(
                "--resume goes on with the job in its folder", do="leave bundles, --suite and -o out"
            )
        folder, new = Path(resume), False
    else:
        folder, new = _checked_output(asked, out, alone=len(names) == 1), True
    failed: dict[str, Path] = {}
    if len(names) == 1:
        runs = [_measure(names[0], folder, new, asked)]
    else:
        runs, failed = _measure_several(names, folder, new, asked)
    return BenchResult(tuple(runs), folder, tuple(write_report(runs, folder)), failed)


@dataclass(frozen=True)
class _Asked:
    """The arguments of `bench` but for devices and folders."""

    rows: tuple[BenchRow, ...]
    suite: str | None
    runner: str | None
    apk: Path | None
    preset: str | Settings
    threads: int | None
    runtimes: Sequence[str] | None
    bundles_dir: Path
    mixed_fusion: bool
    mixed_precision: bool
    pinned: bool
    emulated: bool
    clean: bool
    listener: Listener = field(repr=False)


def _rows_of(bundles: Bundles) -> tuple[BenchRow, ...]:
    from finet_deploy.bench.plan import BenchRow

    if isinstance(bundles, (str, Path)):
        raise UsageError("bundles is a path, a list of them is needed", do=f"give [{str(bundles)!r}]")
    if isinstance(bundles, Mapping):
        return tuple(BenchRow(Path(path), label) for label, path in bundles.items())
    return tuple(item if isinstance(item, BenchRow) else BenchRow(Path(item)) for item in bundles)


def _checked_output(asked: _Asked, out: Path | str | None, *, alone: bool) -> Path:
    """The run folder. Whatever can be known to be wrong is said before minutes of exporting."""
    from finet_deploy.bench.records import check_new
    from finet_deploy.bench.settings import load_preset

    preset = asked.preset
    if isinstance(preset, str):
        load_preset(preset)
    elif not alone:
        raise UsageError("settings of your own on several devices", do="measure them one after another")
    if asked.threads is not None and asked.threads < 1:
        raise UsageError(f"--threads {asked.threads} is not positive", do="give 1 or more")
    if bool(asked.rows) == bool(asked.suite):
        raise UsageError("bundles or a suite: give one of them", do="see `finet-deploy bench --help`")
    name = preset if isinstance(preset, str) else preset.preset
    when = f"{datetime.now(timezone.utc):%Y%m%dT%H%M%S}"
    folder = Path("runs") / f"{asked.suite or 'bundles'}-{name}-{when}" if out is None else Path(out)
    if alone:
        check_new(folder)
    return folder


def _rows(asked: _Asked) -> tuple[list[BenchRow], bool]:
    """The rows, and whether they are fused to different degrees on purpose."""
    from finet_deploy.api.suites import suite_rows
    from finet_deploy.bench.settings import load_suite

    if asked.suite is None:
        return list(asked.rows), False
    chosen = load_suite(asked.suite)
    return suite_rows(chosen, asked.bundles_dir, asked.listener), chosen.mixed_fusion


def _measure(name: str, folder: Path, new: bool, asked: _Asked) -> Run:
    """Measure on one device, into the new folder or on with the run that is in it."""
    from finet_deploy.api.devices import DeviceOptions, open_device
    from finet_deploy.bench.records import read_job

    options = DeviceOptions(
        runner=asked.runner or (None if new else read_job(folder).runner),
        emulated=asked.emulated,
        pinned=asked.pinned,
        clean=asked.clean,
        apk=asked.apk,
    )
    with open_device(name, options, asked.listener) as device, VisitProgress(asked.listener) as progress:
        from finet_deploy.bench.run import resume_bench, run_bench

        device.info()  # a phone that is not there is told before minutes of exporting
        if not new:
            return resume_bench(folder, device=device, progress=progress)
        rows, mixed = _rows(asked)
        return run_bench(
            rows,
            device=device,
            out=folder,
            preset=asked.preset,
            threads=asked.threads,
            runtimes=asked.runtimes,
            suite=asked.suite,
            mixed_fusion=mixed or asked.mixed_fusion,
            mixed_precision=asked.mixed_precision,
            progress=progress,
        )


def _measure_several(
    names: Sequence[str], out: Path, new: bool, asked: _Asked
) -> tuple[list[Run], dict[str, Path]]:
    """Each device in a process of its own; the runs, and the folders of devices that failed."""
    from finet_deploy.api import devices
    from finet_deploy.report import load_runs

    if new:
        _rows(asked)  # a suite is exported once, not by each process
    folders = {name: devices.device_folder(out, name) for name in names}
    if len(set(folders.values())) < len(names):
        raise UsageError("two of these devices would share a folder", do="measure them one after another")
    lines = {name: _command_line(asked, name, folder, new=new) for name, folder in folders.items()}
    statuses = devices.measure_each(lines, asked.listener)
    measured = [folder for folder in folders.values() if (folder / "records.jsonl").exists()]
    if not measured:
        raise FinetDeployError("no device was measured", where=str(out), do="see the messages above")
    failed = {name: folders[name] for name in names if statuses[name] != 0}
    for name, folder in failed.items():
        asked.listener.warn(
            f"{name}: failed; go on with: finet-deploy bench --device {name} --resume {folder}"
        )
    return load_runs(measured), failed


def _command_line(asked: _Asked, name: str, folder: Path, *, new: bool) -> list[str]:
    """The command line that measures on one device, into or out of its own folder."""
    # Whether an invalid visit matters is for the caller: here a status other than 0 is a device that failed.
    line = ["bench", "--device", name, "-o" if new else "--resume", str(folder), "--keep-going"]
    values = {
        "--suite": asked.suite if new else None,
        "--runner": asked.runner,
        "--apk": asked.apk,
        "--preset": asked.preset,
        "--threads": asked.threads,
        "--runtimes": ",".join(asked.runtimes) if asked.runtimes else None,
        "--bundles-dir": asked.bundles_dir,
    }
    flags = {
        "--mixed-fusion": asked.mixed_fusion,
        "--mixed-precision": asked.mixed_precision,
        "--unpinned": not asked.pinned,
        "--emulated": asked.emulated,
        "--clean": asked.clean,
    }
    for option, value in values.items():
        line += [] if value is None else [option, str(value)]
    line += [flag for flag, given in flags.items() if given]
    line += [f"{row.label}={row.bundle}" if row.label else str(row.bundle) for row in asked.rows]
    return line
