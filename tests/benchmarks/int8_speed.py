"""How much faster a network is in int8 than in fp32 on this machine, both runtimes. Exit 1 below the limit.

    python tests/benchmarks/int8_speed.py [MODEL_OPTIONS...] [--preset normal] [--threads 1] [--limit 1.9] [-o DIR]

MODEL_OPTIONS are those of `finet-deploy export` (default: finet_large --num-groups 4). Both bundles are exported, then
measured in one interleaved run whose baseline is fp32: the ratio is paired by round and has an interval. The limit is
for ExecuTorch, and holds when the whole interval lies above it. Needs a quiet machine: the A/A row tells.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from finet_deploy.bench.plan import BenchRow
from finet_deploy.bench.run import run_bench
from finet_deploy.bench.summary import summarise
from finet_deploy.devices.host import HostDevice
from finet_deploy.report.numbers import format_estimate


def export(arguments: list[str], dtype: str, out: Path) -> Path:
    """One bundle for both runtimes."""
    command = [sys.executable, "-m", "finet_deploy", "export", *arguments, "--formats", "pte,onnx"]
    subprocess.run([*command, "--dtype", dtype, "-o", str(out)], check=True)
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--preset", default="normal")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--limit", type=float, default=1.9)
    parser.add_argument("-o", "--output", type=Path)
    options, model = parser.parse_known_args()
    model = model or ["finet_large", "--num-groups", "4"]
    reached = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = [BenchRow(export(model, dtype, folder / dtype), "Finet") for dtype in ("fp32", "int8")]
        run = run_bench(
            rows,
            device=HostDevice(),
            out=options.output or folder / "run",
            preset=options.preset,
            threads=options.threads,
            mixed_precision=True,
        )
        for comparison in summarise(run):
            print(
                f"{comparison.runtime}, {comparison.threads} thread(s), noise floor {comparison.noise_floor}"
            )
            for row in comparison.all_rows:
                rate = format_estimate(row.images_per_second) if row.images_per_second else "no valid visit"
                ratio = format_estimate(row.ratio) if row.ratio else ""
                print(f"  {row.row.label}: {rate} images/s, {ratio} times fp32 ({row.verdict})")
                low = row.ratio.low if row.ratio else None
                if comparison.runtime == "executorch" and row.row.artifact.dtype == "int8":
                    reached = low is not None and low >= options.limit
    print(f"ExecuTorch: {'at least' if reached else 'NOT'} {options.limit} times fp32, interval included")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
