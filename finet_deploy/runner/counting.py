"""One count: a visit of the aarch64 runner under emulation, with the counting plugin."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import msgspec

from finet_deploy.bench.plan import BenchRow, build_job, visit_request
from finet_deploy.bench.protocol import DeviceInfo, End, Load, Reading, Row, Settings, VisitRequest
from finet_deploy.bench.records import VisitResult, decode_lines
from finet_deploy.bench.validity import visit_problem
from finet_deploy.errors import FinetDeployError
from finet_deploy.files import explain_os_error, read_bounded
from finet_deploy.runner.emulate import Core, emulated_command, find_qemu, write_profile
from finet_deploy.runner.folder import CLOCK_LIBRARY, cache_folder, native_sources
from finet_deploy.runner.targets import NATIVE_RUNTIMES

__all__ = ["CLASSES", "Count", "Traced", "build_plugin", "count_visit", "emulated_rows", "trace_visit"]

# Of the plugin, in the order of tables. Each instruction is in one class.
CLASSES = ("fma", "dot", "simd", "load", "store", "branch", "integer", "sve")
TIMEOUT_SECONDS = 1800.0
MAX_COUNTS_BYTES = 16 << 20
MAX_PROFILE_BYTES = 256 << 20
PROFILE = "profile.json"
PLUGIN_OPTIONS = (
    "-std=gnu11",
    "-O2",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-shared",
    "-fPIC",
    "-fvisibility=hidden",
)
# Two inferences after the first two warm-up runs; they must agree.
RUNS = 2
SPREAD_LIMIT = 1e-3
# A runtime that profiles itself grows its list of events now and then; that is between operators.
TRACED_SPREAD_LIMIT = 2e-2
SETTINGS = Settings(
    preset="count",
    description="instructions under emulation",
    rounds=1,
    warmup_min_runs=2,
    warmup_min_seconds=0.0,
    warmup_max_seconds=1e6,
    timed_min_runs=RUNS,
    timed_min_seconds=0.0,
    timed_max_seconds=1e6,
    timed_max_runs=RUNS,
    visit_timeout_seconds=TIMEOUT_SECONDS,
    statistic="median",
    aa_row=False,
)


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """Instructions of one inference by class, and what the visit told about itself."""

    classes: dict[str, int]
    runtime_version: str
    output_error: float

    @property
    def total(self) -> int:
        """All instructions."""
        return sum(self.classes.values())


Snapshots = tuple[tuple[int, ...], ...]  # of all counters, by class, one at each reading of the clock


class Traced(msgspec.Struct, frozen=True, kw_only=True):
    """A profiled visit: its own count, the runner's profile as it was written, and the snapshots."""

    count: Count
    profile: bytes
    ticks: Snapshots


class _Counts(msgspec.Struct, frozen=True, kw_only=True):
    marks: int
    sections: tuple[dict[str, int], ...]
    tick_count: int = 0
    ticks: Snapshots = ()


def build_plugin() -> Path:
    """The counting plugin, compiled into the cache. FinetDeployError without sources or a compiler."""
    sources = native_sources()
    if sources is None or not (sources / "plugin" / "count.c").is_file():
        raise FinetDeployError("the counting plugin's sources are not here", do="count in a source tree")
    digest = hashlib.sha256(repr(PLUGIN_OPTIONS).encode())
    for file in sorted((sources / "plugin").iterdir()):
        digest.update(file.read_bytes())
    out = cache_folder() / "plugin" / f"libcount-{digest.hexdigest()[:16]}.so"
    if out.is_file():
        return out
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise FinetDeployError("no C compiler is installed", do="apt-get install gcc")
    part = out.with_name(f"{out.name}.{os.getpid()}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        command = [compiler, *PLUGIN_OPTIONS, str(sources / "plugin" / "count.c"), "-o", str(part)]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=300)
        if done.returncode != 0:
            do = "check the compiler"
            raise FinetDeployError(f"the counting plugin does not compile: {done.stderr[:300]}", do=do)
        os.replace(part, out)
    except OSError as error:
        raise explain_os_error(error, "build the counting plugin", out) from error
    return out


def emulated_rows(
    bundle: Path, label: str | None, wanted: Core, runtimes: list[str] | None
) -> list[VisitRequest]:
    """A request for each runtime that the bundle has a file for, of those that are wanted."""
    nothing: Reading[str] = Reading(reason="emulated")
    device = DeviceInfo(
        name=f"{wanted.name} (emulated)",
        kind="emulated",
        emulated=True,
        cpu_model=Reading(value=wanted.name),
        cpu_count=1,
        machine=Reading(value="aarch64"),
        operating_system=nothing,
        memory_mib=Reading(reason="emulated"),
    )
    job = build_job(
        [BenchRow(bundle, label)],
        device=device,
        settings=SETTINGS,
        threads=1,
        runtimes=runtimes,
        folder=Path("."),
    )
    requests = [visit_request(job, visit, Path(".")) for visit in job.visits]
    return [request for request in requests if request.row.artifact.runtime in NATIVE_RUNTIMES]


def count_visit(request: VisitRequest, wanted: Core, runner: Path, plugin: Path) -> Count:
    """Count one inference of the request's row. FinetDeployError when the visit fails or is not steady."""
    with tempfile.TemporaryDirectory(prefix="finet-deploy-cost-") as name:
        folder = Path(name)
        stderr = _emulate(request, wanted, runner, plugin, folder, profiled=False)
        return _read(folder, request, stderr, SPREAD_LIMIT)[0]


def trace_visit(request: VisitRequest, wanted: Core, runner: Path, plugin: Path) -> Traced:
    """The same visit, profiled on a clock that takes a snapshot of the counters at every reading.

    Its own count is higher: profiling costs instructions too. FinetDeployError as from `count_visit`.
    """
    with tempfile.TemporaryDirectory(prefix="finet-deploy-cost-") as name:
        folder = Path(name)
        stderr = _emulate(request, wanted, runner, plugin, folder, profiled=True)
        count, ticks = _read(folder, request, stderr, TRACED_SPREAD_LIMIT)
        return Traced(count=count, profile=read_bounded(folder / PROFILE, MAX_PROFILE_BYTES), ticks=ticks)


def _emulate(
    request: VisitRequest, wanted: Core, runner: Path, plugin: Path, folder: Path, *, profiled: bool
) -> str:
    """One visit in `folder`, which gets records and counts; what the runner said last.

    Everything that could move a count is fixed: one thread, no environment, relative paths, the same CPU files.
    """
    qemu, _ = find_qemu()
    suffix = Path(request.artifact_path).suffix
    links = {
        "runner": runner,
        "libcount.so": plugin,
        f"model{suffix}": Path(request.artifact_path),
        "golden.safetensors": Path(request.golden_path),
    }
    for link, to in links.items():
        (folder / link).symlink_to(to.resolve())
    write_profile(wanted, folder / "phone")
    inside = msgspec.structs.replace(
        request, artifact_path=f"model{suffix}", golden_path="golden.safetensors"
    )
    (folder / "request.json").write_bytes(msgspec.json.encode(inside))
    command = emulated_command(
        runner,
        wanted,
        Path("phone"),
        qemu=qemu,
        plugin="./libcount.so,out=counts.json" + (",ticks=1" if profiled else ""),
        seen_as=Path("runner"),
        preload=CLOCK_LIBRARY if profiled else None,
    )
    extra = ("--profile", PROFILE, "--virtual-clock") if profiled else ()
    return _run([*command, "request.json", "records.jsonl", "--mark", *extra], folder, request.row)


def _run(command: list[str], folder: Path, row: Row) -> str:
    environment = {"ORT_DISABLE_TELEMETRY": "1"}
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise FinetDeployError(
            f"no count within {TIMEOUT_SECONDS:g} s", where=row.label, do="try a smaller network"
        ) from error
    except OSError as error:
        do = "reinstall qemu-user"
        raise FinetDeployError(f"the emulator does not start: {error}", where=command[0], do=do) from error
    return done.stderr.decode("utf-8", "replace")


def _read(folder: Path, request: VisitRequest, stderr: str, spread: float) -> tuple[Count, Snapshots]:
    where = f"{request.row.label} on {request.row.artifact.runtime}"
    last = " ".join(stderr.split())[-300:]
    try:
        with (folder / "records.jsonl").open("rb") as stream:
            records, _ = decode_lines(stream, "the runner's records")
        counts = msgspec.json.decode(read_bounded(folder / "counts.json", MAX_COUNTS_BYTES), type=_Counts)
    except (OSError, FinetDeployError, msgspec.DecodeError) as error:
        raise FinetDeployError(
            f"the emulated runner ended without a result: {last}", where=where, do="see its last words"
        ) from error
    result = VisitResult(request.visit.index, tuple(records))
    problem = visit_problem(result, request.row)
    load, end = result.find(Load), result.find(End)
    if problem is not None or load is None or end is None:
        do = "export the bundle again, or choose another core"
        raise FinetDeployError(f"the emulated visit does not count: {problem}", where=where, do=do)
    if len(counts.sections) != RUNS or any(set(section) != set(CLASSES) for section in counts.sections):
        do = "remove the plugin from the cache and try again"
        raise FinetDeployError(f"{counts.marks} marks were counted, not {2 * RUNS}", where=where, do=do)
    first, second = (sum(section.values()) for section in counts.sections)
    if abs(first - second) > spread * second:
        do = "report this: the count is not deterministic"
        raise FinetDeployError(f"two inferences took {first} and {second} instructions", where=where, do=do)
    errors = [error for error in end.output_errors.values() if error is not None]
    count = Count(
        classes={name: counts.sections[-1][name] for name in CLASSES},
        runtime_version=load.runtime_version,
        output_error=max(errors),
    )
    if counts.tick_count != len(counts.ticks) or any(len(tick) != len(CLASSES) for tick in counts.ticks):
        do = "report this: the network is larger than the plugin's room"
        raise FinetDeployError(
            f"{len(counts.ticks)} of {counts.tick_count} ticks are here", where=where, do=do
        )
    return count, counts.ticks
