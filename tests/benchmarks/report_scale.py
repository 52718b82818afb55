"""How long a report of ten thousand records takes, and how large it is. Exit 1 above 10 s or, for a page, 5 MB.

    python tests/benchmarks/report_scale.py [--visits 10000] [--runs 1 100] [--samples 100]

A record is what one visit measured: six lines of `records.jsonl`. `--runs`: into how many runs they are divided, of 20
rows each. The records are made up; what is measured is reading them, working out the figures, and printing each format,
each once, in one process. Seconds are of this machine, and of nothing else that runs on it.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from finet_deploy.bench.protocol import encode_record
from finet_deploy.bench.records import RECORDS_FILE, create_run, read_run
from finet_deploy.bench.summary import summarise
from finet_deploy.report import FORMATS
from tests.bench_fakes import DEVICE, SETTINGS, make_job, make_records, make_row

ROWS = 20
MAX_SECONDS, MAX_PAGE_BYTES = 10.0, 5_000_000


def write_runs(folder: Path, visits: int, runs: int, samples: int) -> list[Path]:
    """Run folders that hold so many visits together, each run with its own device."""
    rounds = max(1, visits // runs // ROWS)
    rows = [make_row(f"onnxruntime/{n}", label=f"Network {n}, G=4") for n in range(ROWS - 1)]
    rows.append(msgspec.structs.replace(rows[0], id="onnxruntime/aa", baseline=False, aa_of=rows[0].id))
    by_id = {row.id: row for row in rows}
    settings = msgspec.structs.replace(SETTINGS, rounds=rounds)
    folders = [folder / f"run{n:04d}" for n in range(runs)]
    for number, path in enumerate(folders):
        job = make_job(rows, settings, device=msgspec.structs.replace(DEVICE, name=f"device {number}"))
        create_run(path, job)
        with (path / RECORDS_FILE).open("wb") as stream:
            for visit in job.visits:
                # Every visit has times of its own; how they vary does not matter here.
                base = 10_000_000 + (visit.index * 7919 + number * 104729) % 50_021
                times = [base + i * 997 % 30_011 for i in range(samples)]
                stream.writelines(map(encode_record, make_records(visit, by_id[visit.row], times)))
    return folders


def measure(folders: list[Path]) -> Iterator[tuple[str, float, float, int]]:
    """Step, seconds, seconds of the processor, and bytes: of the records read, then of each format printed."""
    size = sum((folder / RECORDS_FILE).stat().st_size for folder in folders)
    begun = time.perf_counter(), time.process_time()
    runs = [read_run(folder) for folder in folders]
    yield "read", *_since(begun), size
    begun = time.perf_counter(), time.process_time()
    for run in runs:
        summarise(run)
    yield "figures", *_since(begun), 0
    for name, form in FORMATS.items():
        begun = time.perf_counter(), time.process_time()
        text = form.render(runs)
        yield name, *_since(begun), len(text.encode())


def _since(begun: tuple[float, float]) -> tuple[float, float]:
    return time.perf_counter() - begun[0], time.process_time() - begun[1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--visits", type=int, default=10_000)
    parser.add_argument("--runs", type=int, nargs="+", default=[1, 100])
    parser.add_argument("--samples", type=int, default=100)
    options = parser.parse_args()
    failed = False
    for runs in options.runs:
        with tempfile.TemporaryDirectory() as folder:
            folders = write_runs(Path(folder), options.visits, runs, options.samples)
            found = list(measure(folders))
        what = f"{options.visits} visits in {runs} runs:"
        for name, seconds, busy, size in found:
            print(f"{what} {name:8} {seconds:7.2f} s ({busy:.2f} s of the processor) {size / 1e6:8.2f} MB")
            failed |= name == "html" and size > MAX_PAGE_BYTES
        total, busy = sum(one[1] for one in found), sum(one[2] for one in found)
        failed |= total > MAX_SECONDS
        print(f"{what} all      {total:7.2f} s ({busy:.2f} s of the processor)")
    print("FAIL" if failed else "PASS")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
