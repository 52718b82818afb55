"""Real visits to measure `compare` with: recorded on this machine, kept as one line a visit, read back as rounds.

    python -m tests.benchmarks.compare_recording BUNDLE REFERENCE [--runs 16] [--preset normal] [-o runs/compare-noise]

Each run is a whole benchmark of four rows of one file (the A/A row among them) and one of another network, interleaved
as always. Runs that are there are kept, so the command can be given again. Leave the machine alone meanwhile.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from finet_deploy.bench.plan import BenchRow
from finet_deploy.bench.protocol import Start
from finet_deploy.bench.records import Run, read_run
from finet_deploy.bench.run import run_bench
from finet_deploy.bench.summary import RowVisits
from finet_deploy.devices.host import HostDevice
from finet_deploy.files import atomic_write_text

COLUMNS = ("run", "runtime", "file", "row", "round", "started_utc", "images_per_second")
SAME_FILE = ("net", "net again", "net once more")  # and the A/A row of the first
REFERENCE = "reference"


@dataclass(frozen=True)
class Recording:
    """Rounds of one runtime in the order in which they were measured.

    rounds: images per second by row, of rounds in which every visit was valid. runs: which run each is of. same: rows
    of one file. others: rows of other files.
    """

    runtime: str
    rounds: tuple[dict[str, float], ...]
    runs: tuple[str, ...]
    same: tuple[str, ...]
    others: tuple[str, ...]


def record(
    bundle: Path, reference: Path, out: Path, *, runs: int, preset: str, runtimes: Sequence[str]
) -> None:
    """Measure until `out` holds this many complete runs."""
    rows = [*(BenchRow(bundle, label) for label in SAME_FILE), BenchRow(reference, REFERENCE)]
    for number in range(runs):
        folder = out / f"run-{number:02d}"
        run = run_bench(
            rows, device=HostDevice(), out=folder, preset=preset, threads=1, runtimes=runtimes, resume=True
        )
        print(f"{folder}: {len(run.visits)} visits", flush=True)


def visit_lines(runs: Iterable[Run]) -> list[dict[str, str]]:
    """A line for every valid visit, in the order of time within each run."""
    lines = []
    for run in runs:
        for row in run.job.rows:
            visits = RowVisits(run, row)
            for number, rate in visits.rates(run.job.settings).items():
                start = visits.valid[number].find(Start)
                assert start is not None
                values = (run.folder.name, row.artifact.runtime, row.artifact.sha256[:12], row.label, number)
                line = dict(zip(COLUMNS, (*map(str, values), start.started_utc, f"{rate:.4f}")))
                lines.append(line)
    return sorted(lines, key=lambda line: line["started_utc"])


def write_visits(lines: Sequence[dict[str, str]], path: Path) -> None:
    """One CSV line a visit."""
    rows = [
        ",".join(COLUMNS),
        *(",".join(f'"{line[c]}"' if "," in line[c] else line[c] for c in COLUMNS) for line in lines),
    ]
    atomic_write_text(path, "\n".join(rows) + "\n")


def read_recordings(paths: Sequence[Path]) -> list[Recording]:
    """From run folders, or from files that `write_visits` wrote: one recording a runtime and set of rows."""
    lines = []
    for path in paths:
        if path.is_dir():
            lines += visit_lines([read_run(path)])
        else:
            with path.open(newline="") as stream:
                lines += list(csv.DictReader(stream))
    runs: dict[tuple[str, str], list[dict[str, str]]] = {}
    for line in lines:
        runs.setdefault((line["run"], line["runtime"]), []).append(line)
    alike: dict[tuple[str, frozenset[tuple[str, str]]], list[dict[str, str]]] = {}
    for (_, runtime), own in runs.items():
        rows = frozenset((line["file"], line["row"]) for line in own)
        alike.setdefault((runtime, rows), []).extend(own)
    return [_recording(runtime, own) for (runtime, _), own in alike.items()]


def _recording(runtime: str, lines: Sequence[dict[str, str]]) -> Recording:
    """Rounds that lack a valid visit of any row are left out."""
    files: dict[str, list[str]] = {}
    rounds: dict[tuple[str, str], dict[str, float]] = {}
    for line in lines:
        names = files.setdefault(line["file"], [])
        if line["row"] not in names:
            names.append(line["row"])
        rounds.setdefault((line["run"], line["round"]), {})[line["row"]] = float(line["images_per_second"])
    same = max(files.values(), key=len)
    others = [name for names in files.values() for name in names if names is not same]
    whole = {key: rates for key, rates in rounds.items() if len(rates) == len(same) + len(others)}
    return Recording(
        runtime, tuple(whole.values()), tuple(run for run, _ in whole), tuple(same), tuple(others)
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("reference", type=Path)
    parser.add_argument("--runs", type=int, default=16)
    parser.add_argument("--preset", default="normal")
    parser.add_argument("--runtimes", default="onnxruntime")
    parser.add_argument("-o", "--output", type=Path, default=Path("runs/compare-noise"))
    options = parser.parse_args()
    record(
        options.bundle,
        options.reference,
        options.output,
        runs=options.runs,
        preset=options.preset,
        runtimes=options.runtimes.split(","),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
