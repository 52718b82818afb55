"""What share of this machine's matrix-product peak each row of recorded runs reached.

    python tests/benchmarks/sgemm_share.py runs/table4-normal [RUN...] [-o results/host] [--repeats 15]

The peak is the native runner's: fp32 multiply-adds of a matrix product out of the nearest cache, with as many threads
as the row had, measured `--repeats` times now. So a run should have been made just before, on the same quiet machine. A
share is multiply-adds of the network times images per second, over the peak; its interval is the rate's interval over
the peak's median, and the peak's own spread is printed beside it.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from finet_deploy.bench.records import Run, read_run
from finet_deploy.bench.statistics import Estimate, median_estimate
from finet_deploy.bench.summary import RowSummary, summarise
from finet_deploy.files import atomic_write_text
from finet_deploy.profile.host import HostProfiler
from finet_deploy.profile.roofline import decode_core_best
from finet_deploy.report.markdown import render_table
from finet_deploy.report.numbers import format_estimate

COLUMNS = [
    "network",
    "runtime",
    "threads",
    "images/s",
    "ratio to the baseline",
    "verdict",
    "share of sgemm peak, %",
]


def peak_of(threads: int, repeats: int) -> Estimate:
    """Multiply-adds per second of a matrix product, over `repeats` measurements."""
    device = HostProfiler()
    rates = [
        decode_core_best(device.core_best(threads), device.info().name).macs_per_second
        for _ in range(repeats)
    ]
    return median_estimate(rates)


def share_of(summary: RowSummary, peak: Estimate) -> str:
    """Per cent of the peak, with the interval of the rate."""
    rate = summary.images_per_second
    return "–" if rate is None else format_estimate(rate.times(100 * summary.row.macs / peak.value))


def cells(run: Run, peaks: dict[int, Estimate]) -> list[list[str]]:
    """A line of the table for each row of the run, A/A rows left out."""
    lines = []
    for comparison in summarise(run):
        for summary in comparison.rows:
            lines.append(
                [
                    summary.row.label,
                    comparison.runtime,
                    str(comparison.threads),
                    format_estimate(summary.images_per_second),
                    format_estimate(summary.ratio),
                    summary.verdict,
                    share_of(summary, peaks[comparison.threads]),
                ]
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--repeats", type=int, default=15)
    arguments = parser.parse_args()
    runs = [read_run(folder) for folder in arguments.runs]
    threads = sorted({row.threads for run in runs for row in run.job.rows})
    peaks = {count: peak_of(count, arguments.repeats) for count in threads}
    said = [
        f"* {count} thread(s): peak {format_estimate(peak.times(2e-9))} GFLOP/s in {arguments.repeats} measurements"
        for count, peak in peaks.items()
    ]
    rows = [line for run in runs for line in cells(run, peaks)]
    text = "\n".join(["# Share of the matrix-product peak", "", render_table(COLUMNS, rows), "", *said, ""])
    print(text)
    if arguments.output:
        atomic_write_text(arguments.output / "sgemm_share.md", text)


if __name__ == "__main__":
    main()
