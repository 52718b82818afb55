"""Are the aarch64 runner's outputs those of this machine? Every bundle, both runtimes; a Markdown table on stdout.

    python tests/benchmarks/arm_outputs.py bundles/finet_large_g4_se bundles/mobilenet_v2 ... [--core cortex-a76]

aarch64 code is executed by qemu-user: nothing here is a speed. Exit status 1 when an output is further than 1e-6
(norm-relative) from this machine's. Two golden inputs of each bundle are run: a photograph, and the first other one.
Beside it stands how far each of the two is from the golden output, which was computed in float64.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

import msgspec
from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(Path(__file__).parents[2]))

from finet_deploy.bench.protocol import VisitRequest
from finet_deploy.bench.records import VisitResult
from finet_deploy.bench.validity import visit_problem
from finet_deploy.runner import runner_command, runner_folder
from finet_deploy.runner.emulate import core, emulated_command, find_qemu, write_profile
from finet_deploy.runner.targets import host_target
from finet_deploy.verify.compare import compare
from tests.bench_fakes import SETTINGS
from tests.device.runner_native import requests_for, run_native, with_golden

LIMIT = 1e-6
HOUR = 3600.0
ONCE = msgspec.structs.replace(
    SETTINGS,
    rounds=1,
    aa_row=False,
    timed_min_runs=1,
    timed_max_runs=1,
    warmup_min_runs=1,
    warmup_max_seconds=HOUR,
)


def main() -> int:
    """Print the table; 0 when every row is within the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundles", nargs="+", type=Path)
    parser.add_argument("--core", default="cortex-a76")
    options = parser.parse_args()
    qemu, version = find_qemu()
    print(
        f"aarch64 outputs (emulated {options.core}, qemu {version}) against {host_target()}'s, two golden inputs\n"
    )
    print(
        "| bundle | runtime | input | aarch64 from here | here from float64 | aarch64 from float64 | top-1 |"
    )
    print("| --- | --- | --- | ---: | ---: | ---: | --- |")
    failed = 0
    for bundle in options.bundles:
        for runtime, request in requests_for(bundle, settings=ONCE).items():
            with tempfile.TemporaryDirectory() as name:
                here, there, golden = run_both(request, Path(name), qemu, options.core)
            pairs = compare(here, there), compare(golden, here), compare(golden, there)
            failed += not pairs[0].max_error < LIMIT
            for rows in zip(*(pair.inputs for pair in pairs)):
                errors = " | ".join(f"{row.relative_error:.1e}" for row in rows)
                cells = f"{bundle.name} | {runtime} | {rows[0].name} | {errors} | {rows[0].top1}"
                print(f"| {cells} |", flush=True)
    print(f"\nLimit: {LIMIT:g}. {f'{failed} files beyond it.' if failed else 'All within it.'}")
    return 1 if failed else 0


def run_both(
    request: VisitRequest, folder: Path, qemu: str, name: str
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The outputs of both builds, and the golden ones, on the inputs that the request checks."""
    wanted = list(request.row.golden.output_limits)
    tensors = load_file(request.golden_path)
    kept = {key: value for key, value in tensors.items() if key.partition(".")[2] in wanted}
    save_file(kept, folder / "golden.safetensors")
    request = with_golden(request, folder / "golden.safetensors")
    write_profile(core(name), folder / "phone")
    arm = emulated_command(runner_folder("aarch64"), core(name), folder / "phone", qemu=qemu)
    outputs = []
    for where, command in (("host", runner_command(runner_folder(host_target()))), ("arm", tuple(arm))):
        done = run_native(request, folder / where, "--outputs", "outputs.bin", command=command, timeout=HOUR)
        problem = visit_problem(VisitResult(request.visit.index, tuple(done.records)), request.row)
        if problem is not None:
            sys.exit(f"{where}: {problem}\n{done.stderr[-1000:]}")
        outputs.append(done.outputs())
    return outputs[0], outputs[1], {key: tensors[f"output.{key}"] for key in outputs[0]}


if __name__ == "__main__":
    sys.exit(main())
