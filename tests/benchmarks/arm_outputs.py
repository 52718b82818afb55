"""Are the aarch64 runner's outputs those of this machine? Every bundle, both runtimes; a Markdown table on stdout.

    python tests/benchmarks/arm_outputs.py bundles/finet_large_g4_se bundles/mobilenet_v2 ... [--core cortex-a76]
    python tests/benchmarks/arm_outputs.py bundles/finet_large_g4 --x86 Nehalem    # x86_64 against itself

aarch64 code is executed by qemu-user: nothing here is a speed. Exit status 1 when an output is further than 1e-6
(norm-relative) from this machine's. Two golden inputs of each bundle are run: a photograph, and the first other one.
Beside it stands how far each of the two is from the golden output, which was computed in float64. `--x86` puts this
machine's own build in the place of the aarch64 one, on an emulated x86 processor that makes the runtimes choose other
kernels: how far one build is from itself.
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
    parser.add_argument("--x86", metavar="CPU", help="as qemu-x86_64 names it: Nehalem, Haswell")
    options = parser.parse_args()
    qemu, version = find_qemu()
    there, named = ("x86_64", options.x86) if options.x86 else ("aarch64", options.core)
    print(
        f"{there} outputs (emulated {named}, qemu {version}) against {host_target()}'s, two golden inputs\n"
    )
    there = named if options.x86 else there
    print(
        f"| bundle | runtime | input | {there} from here | here from float64 | {there} from float64 | top-1 |"
    )
    print("| --- | --- | --- | ---: | ---: | ---: | --- |")
    failed = 0
    for bundle in options.bundles:
        for runtime, request in requests_for(bundle, settings=ONCE).items():
            with tempfile.TemporaryDirectory() as name:
                scratch = Path(name)
                other = x86(options.x86) if options.x86 else arm(scratch / "phone", qemu, options.core)
                here, far, golden = run_both(request, scratch, other)
            pairs = compare(here, far), compare(golden, here), compare(golden, far)
            failed += not pairs[0].max_error < LIMIT
            for rows in zip(*(pair.inputs for pair in pairs)):
                errors = " | ".join(f"{row.relative_error:.1e}" for row in rows)
                cells = f"{bundle.name} | {runtime} | {rows[0].name} | {errors} | {rows[0].top1}"
                print(f"| {cells} |", flush=True)
    print(f"\nLimit: {LIMIT:g}. {f'{failed} files beyond it.' if failed else 'All within it.'}")
    return 1 if failed else 0


def arm(profile: Path, qemu: str, name: str) -> list[str]:
    """The aarch64 runner on an emulated core."""
    write_profile(core(name), profile)
    return emulated_command(runner_folder("aarch64"), core(name), profile, qemu=qemu)


def x86(cpu: str) -> list[str]:
    """This machine's runner on an emulated x86 processor. By its loader: a shell's exec would leave the emulation."""
    folder = runner_folder("x86_64")
    loader = [folder / "lib/ld-linux-x86-64.so.2", "--inhibit-cache", "--library-path", folder / "lib"]
    return ["qemu-x86_64", "-cpu", cpu, *map(str, loader), str(folder / "bin/finet-runner")]


def run_both(
    request: VisitRequest, folder: Path, other: list[str]
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Our outputs, those of the command `other`, and the golden ones, on the inputs that the request checks."""
    wanted = list(request.row.golden.output_limits)
    tensors = load_file(request.golden_path)
    kept = {key: value for key, value in tensors.items() if key.partition(".")[2] in wanted}
    save_file(kept, folder / "golden.safetensors")
    request = with_golden(request, folder / "golden.safetensors")
    outputs = []
    for where, command in (("host", runner_command(runner_folder(host_target()))), ("there", tuple(other))):
        done = run_native(request, folder / where, "--outputs", "outputs.bin", command=command, timeout=HOUR)
        problem = visit_problem(VisitResult(request.visit.index, tuple(done.records)), request.row)
        if problem is not None:
            sys.exit(f"{where}: {problem}\n{done.stderr[-1000:]}")
        outputs.append(done.outputs())
    return outputs[0], outputs[1], {key: tensors[f"output.{key}"] for key in outputs[0]}


if __name__ == "__main__":
    sys.exit(main())
