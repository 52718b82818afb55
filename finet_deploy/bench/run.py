"""Run a job on a device, visit by visit, so that at any moment it can be killed and gone on with."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from finet_deploy.bench.plan import BenchRow, build_job, differences, visit_request
from finet_deploy.bench.protocol import Job, Row, Settings, Visit
from finet_deploy.bench.records import RecordLog, Run, VisitResult, create_run, read_job, read_run
from finet_deploy.bench.settings import load_preset
from finet_deploy.bench.validity import visit_problem
from finet_deploy.devices.base import Device
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.files import sha256_file

__all__ = ["Progress", "VisitDone", "resume_bench", "run_bench", "run_job"]


@dataclass(frozen=True)
class VisitDone:
    """Told after each visit: `done` of `total`, and why the visit does not count (`None` when it does)."""

    done: int
    total: int
    visit: Visit
    row: Row
    problem: str | None


Progress = Callable[[VisitDone], None]
GoOn = Callable[[Visit], bool]


def run_bench(
    rows: Sequence[BenchRow],
    *,
    device: Device,
    out: Path,
    preset: str | Settings = "quick",
    threads: int | None = None,
    runtimes: Sequence[str] | None = None,
    suite: str | None = None,
    mixed_fusion: bool = False,
    mixed_precision: bool = False,
    resume: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Measure `rows` on `device` into the run folder `out`; the first row is the baseline of the ratios.

    With `resume`, a run that is already in `out` is gone on with, when its job is the same; `UsageError` naming the
    differences when it is not. Invalid visits do not stop the run: see `summarise`. Raises `UsageError` before
    anything is written, `FinetDeployError` for what the machine refuses, and lets Ctrl-C through.
    """
    settings = load_preset(preset) if isinstance(preset, str) else preset
    job = build_job(
        rows,
        device=device.info(),
        settings=settings,
        threads=device.default_threads() if threads is None else threads,
        runtimes=runtimes,
        folder=out,
        suite=suite,
        mixed_fusion=mixed_fusion,
        mixed_precision=mixed_precision,
        runner=device.runner,
        supported=device.runtimes,
    )
    return run_job(job, out, device=device, resume=resume, progress=progress)


def run_job(
    job: Job,
    out: Path,
    *,
    device: Device,
    resume: bool = False,
    progress: Progress | None = None,
    go_on: GoOn | None = None,
) -> Run:
    """Run `job` on `device` into the run folder `out`. go_on: asked before each visit; False ends the run there.

    With `resume`, see `run_bench`. A run that was ended early has missing visits and can be resumed.
    """
    if resume and out.exists():
        changed = differences(read_job(out), job)
        if changed:
            listed = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
            do = "resume with the options it was started with, or choose another folder"
            raise UsageError(f"the run in this folder is another one: {listed} differ", where=str(out), do=do)
    else:
        create_run(out, job)
    return _execute(out, device, progress, go_on)


def resume_bench(
    out: Path, *, device: Device, progress: Progress | None = None, go_on: GoOn | None = None
) -> Run:
    """Complete the run in `out` with the job that is in it. A finished run is left as it is. go_on: see `run_job`."""
    job = read_job(out)
    found = device.info()
    if found != job.device:
        changed = [
            name for name in found.__struct_fields__ if getattr(found, name) != getattr(job.device, name)
        ]
        raise UsageError(
            f"the run was started on another device: {', '.join(changed)} differ",
            where=str(out),
            do="resume it where it was started",
        )
    if job.runner not in (None, device.runner):
        raise UsageError(
            f"the run was started with the {job.runner} runner, this is the {device.runner} one",
            where=str(out),
            do=f"resume it with --runner {job.runner}",
        )
    return _execute(out, device, progress, go_on)


def _execute(out: Path, device: Device, progress: Progress | None, go_on: GoOn | None = None) -> Run:
    with RecordLog.open(out) as log:
        run = read_run(out)
        missing = run.missing
        if not missing:
            return run
        _check_files(run.job, out)
        device.prepare(run.job.rows, out)
        if run.visits or run.tail_bytes:
            now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
            log.mark_resumed(run, now)
        rows = {row.id: row for row in run.job.rows}
        total = len(run.job.visits)
        for done, index in enumerate(missing, start=total - len(missing) + 1):
            visit = run.job.visits[index]
            if go_on is not None and not go_on(visit):
                break
            records = device.run_visit(visit_request(run.job, visit, out))
            log.append(records)
            if progress is not None:
                problem = visit_problem(VisitResult(index, tuple(records)), rows[visit.row])
                progress(VisitDone(done, total, visit, rows[visit.row], problem))
    return read_run(out)


def _check_files(job: Job, out: Path) -> None:
    """Every file is still the one that the job names."""
    checked: dict[str, str] = {}
    for visit in job.visits[: len(job.rows)]:  # the first round has every row
        request = visit_request(job, visit, out)
        for path, expected in (
            (request.artifact_path, request.row.artifact.sha256),
            (request.golden_path, request.row.golden.sha256),
        ):
            if path not in checked:
                checked[path] = sha256_file(path)
            if checked[path] != expected:
                do = "export the bundle again and start a new run"
                raise FinetDeployError("the file is not the one that the job names", where=path, do=do)
