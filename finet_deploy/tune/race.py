"""Measuring the candidates of a rung with `bench`: interleaved rounds, a fresh process a visit, paired ratios."""

from __future__ import annotations

import contextlib
import datetime
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from finet_deploy import __version__
from finet_deploy.bench.plan import bundle_row, same_file_row
from finet_deploy.bench.protocol import Job, Row, Settings, Visit
from finet_deploy.bench.records import JOB_FILE, Run, read_job
from finet_deploy.bench.run import VisitDone, resume_bench, run_job
from finet_deploy.bench.schedule import plan_visits
from finet_deploy.bench.settings import load_preset
from finet_deploy.bench.summary import RowSummary, judge_rows
from finet_deploy.devices.base import Device
from finet_deploy.errors import UsageError
from finet_deploy.export import Bundle
from finet_deploy.tune.budget import Budget
from finet_deploy.tune.halving import LAST_COMPANIONS, LEAST_LAST_ROUNDS, NO_TIME_LEFT, Rung
from finet_deploy.tune.model import Candidate

__all__ = ["Race", "Steps", "no_steps"]

VISIT = "visit"
FIRST_VISIT_SECONDS = 4.0  # until one was made: mostly importing a runtime
Steps = Callable[[str, int], contextlib.AbstractContextManager[Callable[[str], None]]]


@contextlib.contextmanager
def no_steps(title: str, total: int) -> Iterator[Callable[[str], None]]:
    """Progress that nobody looks at."""
    yield lambda step: None


class Race:
    """Runs rungs on a device, each into a run folder of its own below `folder`, and keeps what they showed.

    bundles: name -> bundle. candidates: the default first. steps: makes the progress of each rung.
    """

    def __init__(
        self,
        device: Device,
        folder: Path,
        bundles: Mapping[str, Bundle],
        candidates: Sequence[Candidate],
        budget: Budget,
        steps: Steps = no_steps,
    ) -> None:
        self._device, self._folder, self._bundles = device, folder, bundles
        self._candidates = {candidate.id: candidate for candidate in candidates}
        self._default = candidates[0]
        self._budget, self._steps = budget, steps
        self.summaries: dict[str, tuple[int, RowSummary]] = {}
        self.aa: RowSummary | None = None
        self.noise_floor: float | None = None
        self.cut: dict[int, int] = {}

    def visits_left(self) -> float:
        """How many visits the budget still allows, by what they took so far."""
        return self._budget.left / self._visit_seconds

    @property
    def _visit_seconds(self) -> float:
        return max(1e-3, self._budget.mean(VISIT, FIRST_VISIT_SECONDS))

    def recorded(self, number: int) -> Rung | None:
        """The rung that an earlier process began in this folder. UsageError when it is of another search."""
        path = self._path(number)
        if not (path / JOB_FILE).exists():
            return None
        job = read_job(path)
        names = [row.id for row in job.rows if row.aa_of is None]
        if names[:1] != [self._default.id] or not set(names) <= set(self._candidates):
            raise UsageError(
                "this rung is of another search", where=str(path), do="remove the folder, or choose another"
            )
        return Rung(number, tuple(names[1:]), job.settings.rounds, job.settings.aa_row)

    def measure(self, rung: Rung) -> dict[str, float | str]:
        """Entrant -> how many times as fast as the default, the median over the rounds; without one, why."""
        path = self._path(rung.number)
        title = f"rung {rung.number + 1}"
        with self._steps(title, (len(rung.entrants) + 1 + rung.last) * rung.rounds) as step:
            done = self._budget.timed(VISIT)

            def told(visit: VisitDone) -> None:
                nonlocal done
                done()
                done = self._budget.timed(VISIT)
                text = f"{title}, round {visit.visit.round + 1}: {visit.row.label}"
                step(text if visit.problem is None else f"{text}: INVALID, {visit.problem}")

            def go_on(visit: Visit) -> bool:
                return self._goes_on(rung)

            if (path / JOB_FILE).exists():
                run = resume_bench(path, device=self._device, progress=told, go_on=go_on)
            else:
                run = run_job(self._job(rung, path), path, device=self._device, progress=told, go_on=go_on)
        return self._results(rung, run)

    def _goes_on(self, rung: Rung) -> bool:
        """Whether there is time for one visit more, and for the least of a last rung after it.

        A rung that a later one followed has ended: what is missing in it stays so.
        """
        if (self._path(rung.number + 1) / JOB_FILE).exists():
            return False
        after = 0 if rung.last else LEAST_LAST_ROUNDS * (1 + LAST_COMPANIONS)
        this = self._budget.longest(VISIT, FIRST_VISIT_SECONDS)
        return self._budget.fits(this + after * self._visit_seconds)

    def _results(self, rung: Rung, run: Run) -> dict[str, float | str]:
        rows, aa, floor = judge_rows(run, run.job.rows)
        if run.missing:
            self.cut[rung.number] = len(run.missing)
        self.summaries |= {row.row.id: (rung.number, row) for row in rows if row.valid_visits}
        if rung.last:
            self.aa, self.noise_floor = aa, floor
        default, *entrants = rows
        return {
            row.row.id: row.ratio.value if row.ratio is not None else _why_none(row, default)
            for row in entrants
        }

    def _job(self, rung: Rung, path: Path) -> Job:
        chosen = [self._default, *(self._candidates[name] for name in rung.entrants)]
        rows = [self._row(candidate, path) for candidate in chosen]
        if rung.last:
            rows.append(same_file_row(rows[0]))
        settings = _settings(rung)
        return Job(
            tool_version=__version__,
            created_utc=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            suite=None,
            mixed_fusion=False,
            mixed_precision=len({row.artifact.dtype for row in rows}) > 1,
            device=self._device.info(),
            runner=self._device.runner,
            settings=settings,
            rows=tuple(rows),
            visits=plan_visits([[row.id for row in rows]], settings.rounds),
        )

    def _row(self, candidate: Candidate, path: Path) -> Row:
        return bundle_row(
            candidate.id,
            candidate.label,
            self._bundles[candidate.bundle],
            candidate.runtime,
            threads=candidate.threads,
            folder=path,
            baseline=candidate is self._default,
        )

    def _path(self, number: int) -> Path:
        return self._folder / f"rung-{number + 1}"


def _why_none(row: RowSummary, default: RowSummary) -> str:
    if row.invalid:
        return f"its visits failed: {row.invalid[0].reason}"
    if default.invalid:
        return f"the default bundle's visits failed: {default.invalid[0].reason}"
    return NO_TIME_LEFT


def _settings(rung: Rung) -> Settings:
    return msgspec.structs.replace(
        load_preset("demo"),
        preset="tune",
        description="A rung of a search: short visits, as many rounds as its share of the budget allows.",
        rounds=rung.rounds,
        aa_row=rung.last,
    )
