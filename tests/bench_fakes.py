"""Jobs, records and bundles made by hand: the same bytes every time."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace

import msgspec
import numpy as np
from safetensors.numpy import save_file

from finet_deploy.bench.plan import BenchRow
from finet_deploy.bench.protocol import (
    Artifact,
    DeviceInfo,
    DeviceState,
    End,
    First,
    Golden,
    Job,
    Load,
    Reading,
    Record,
    Row,
    Samples,
    Settings,
    Start,
    Visit,
    Warmup,
)
from finet_deploy.bench.records import RecordLog, Run, create_run, read_run
from finet_deploy.bench.schedule import plan_visits
from finet_deploy.files import sha256_file
from finet_deploy.verify import Certificate, Check
from finet_deploy.verify.compare import InputComparison

FORMATS = {"onnx": "onnxruntime", "pte": "executorch"}
SETTINGS = Settings(
    preset="test",
    description="for tests",
    rounds=3,
    warmup_min_runs=1,
    warmup_min_seconds=0.0,
    warmup_max_seconds=5.0,
    timed_min_runs=5,
    timed_min_seconds=0.0,
    timed_max_seconds=20.0,
    timed_max_runs=1000,
    visit_timeout_seconds=60.0,
    statistic="median",
    aa_row=True,
)
DEVICE = DeviceInfo(
    name="host",
    kind="host",
    emulated=False,
    cpu_model=Reading(value="Example CPU"),
    cpu_count=2,
    machine=Reading(value="x86_64"),
    operating_system=Reading(value="Linux 6.1"),
    memory_mib=Reading(value=8192),
)
STATE = DeviceState(
    load_average_1min=Reading(value=0.25),
    governor=Reading(reason="no cpufreq"),
    frequencies_mhz=Reading(value=(2600.0, 2600.0)),
    memory_available_mib=Reading(value=4096),
    temperatures_celsius=Reading(value={"thermal_zone0 cpu": 41.5}),
    battery_percent=Reading(reason="no battery"),
    battery_charging=Reading(reason="no battery"),
    thermal_status=Reading(value="light"),
    thermal_headroom=Reading(value=0.75),
    sustained_performance=Reading(value=False),
)


def make_row(id: str = "onnxruntime/0", **changes) -> Row:
    """A row; fields of its artifact are given as `artifact__name`."""
    inner = {name.removeprefix("artifact__"): changes.pop(name) for name in list(changes) if "__" in name}
    artifact = {
        "file": "model.onnx",
        "sha256": hashlib.sha256(b"model").hexdigest(),
        "bytes": 5,
        "format": "onnx",
        "runtime": "onnxruntime",
        "dtype": "float32",
        "normalization_ops": 0,
        **inner,
    }
    golden = Golden(
        file="golden.safetensors",
        sha256="0" * 64,
        timed_input="photo_0",
        output_limits={"photo_0": 1e-5, "noise_0": 1e-5},
    )
    fields = {
        "label": id,
        "baseline": id.endswith("/0"),
        "bundle": "../bundle",
        "threads": 1,
        "input_shape": (1, 3, 64, 64),
        "fused": True,
        "trained": False,
        "params": 4_477_568,
        "macs": 302_870_000,
        "certificate_passed": True,
        **changes,
    }
    return Row(id=id, artifact=Artifact(**artifact), golden=golden, **fields)


def make_rows(folder: Path, name: str = "bundle") -> list[Row]:
    """Two rows of one file in the bundle `folder / name`, which is made, for a run folder below `folder`."""
    bundle = folder / name
    bundle.mkdir()
    (bundle / "model.onnx").write_bytes(b"model")
    photo = np.random.default_rng(1).random((1, 3, 64, 64), dtype=np.float32)
    outputs = {name: np.arange(10.0)[None] + n for n, name in enumerate(("photo_0", "noise_0"))}
    write_golden(bundle / "golden.safetensors", photo, outputs)
    sha256 = sha256_file(bundle / "golden.safetensors")
    rows = []
    for id, label in (("onnxruntime/0", "net"), ("onnxruntime/0-aa", "A/A: net")):
        aa_of = None if label == "net" else "onnxruntime/0"
        row = make_row(id, label=label, baseline=aa_of is None, aa_of=aa_of, bundle=f"../{bundle.name}")
        golden = msgspec.structs.replace(row.golden, sha256=sha256)
        rows.append(msgspec.structs.replace(row, golden=golden))
    return rows


def make_job(rows: Sequence[Row], settings: Settings = SETTINGS, **changes) -> Job:
    """A job over these rows, grouped by runtime."""
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(row.artifact.runtime, []).append(row.id)
    return Job(
        tool_version="0.1.0",
        created_utc="2026-11-21T00:00:00+00:00",
        mixed_fusion=changes.pop("mixed_fusion", False),
        device=changes.pop("device", DEVICE),
        settings=settings,
        rows=tuple(rows),
        visits=plan_visits(list(groups.values()), settings.rounds),
        **changes,
    )


def make_records(visit: Visit, row: Row, latencies_ns: Sequence[int], **changes) -> list[Record]:
    """What a runner writes in a visit that goes well; `threads`, `sha256`, `error`, `runtime`, `runs` spoil it."""
    index = visit.index
    error = changes.get("error", 1e-7)
    return [
        Start(
            visit=index,
            started_utc="2026-11-21T00:00:01.000+00:00",
            pid=4242,
            runner="test 1",
            affinity_cpus=Reading(value=(0, 1)),
            artifact_sha256=changes.get("sha256", row.artifact.sha256),
            state=STATE,
        ),
        Load(
            visit=index,
            runtime=changes.get("runtime", row.artifact.runtime),
            runtime_version=changes.get("runtime_version", "1.2.3"),
            threads=changes.get("threads", row.threads),
            import_ms=20.0,
            load_ms=12.5,
        ),
        First(visit=index, first_ms=31.25),
        Warmup(visit=index, runs=2, total_ms=24.0),
        Samples(visit=index, latencies_ns=tuple(latencies_ns)),
        End(
            visit=index,
            ended_utc="2026-11-21T00:00:02.000+00:00",
            runs=changes.get("runs", len(latencies_ns)),
            total_ms=sum(latencies_ns) / 1e6,
            stopped_by=changes.get("stopped_by", "minimum"),
            peak_rss_mib=Reading(value=128.5),
            os_threads=Reading(value=3),
            output_errors={"photo_0": error, "noise_0": 1e-7},
            state=STATE,
        ),
    ]


def make_run(
    folder: Path, job: Job, latency_ms: dict[str, float], spoil: dict[int, dict] | None = None
) -> Run:
    """A finished run: each row has its latency in ms, a little different from round to round."""
    create_run(folder, job)
    rows = {row.id: row for row in job.rows}
    with RecordLog.open(folder) as log:
        for visit in job.visits:
            base = latency_ms[visit.row] * (1 + 0.001 * (visit.index * 7919 % 11))
            samples = [int(base * 1e6 * (1 + 0.0001 * i)) for i in range(40)]
            log.append(make_records(visit, rows[visit.row], samples, **(spoil or {}).get(visit.index, {})))
    return read_run(folder)


def write_golden(path: Path, photo: np.ndarray, outputs: dict[str, np.ndarray]) -> None:
    """A golden file whose inputs are a photo and noise of the same shape."""
    noise = np.random.default_rng(0).standard_normal(photo.shape, dtype=np.float32)
    inputs = {"photo_0": photo, "noise_0": noise}
    tensors = {f"input.{name}": value for name, value in inputs.items()}
    save_file({**tensors, **{f"output.{name}": value for name, value in outputs.items()}}, path)


def fake_bundle(path: Path, name: str, formats: dict[str, str], **changes) -> SimpleNamespace:
    """What `read_bundle` returns, as far as a benchmark looks at it. `formats`: format -> runtime."""
    sha = changes.get("sha256", hashlib.sha256(b"model").hexdigest())
    artifacts = {
        fmt: SimpleNamespace(
            file=f"model.{fmt}",
            sha256=sha,
            bytes=5,
            format=fmt,
            runtime=runtime,
            dtype=changes.get("dtype", "float32"),
            delegates=1,
            delegated_share=1.0,
            nodes_outside=0,
            normalization_ops=changes.get("normalization_ops", 0),
            notices=(),
        )
        for fmt, runtime in formats.items()
    }
    manifest = SimpleNamespace(
        name=name,
        fused=changes.get("fused", True),
        artifacts=artifacts,
        golden=SimpleNamespace(
            file="golden.safetensors",
            sha256=changes.get("golden_sha256", "0" * 64),
            inputs=("noise_0", "photo_0", "zeros"),
        ),
        certificate=SimpleNamespace(passed=changes.get("passed", True)),
        source=SimpleNamespace(trained=False),
        input=SimpleNamespace(shape=changes.get("shape", (1, 3, 8, 8))),
        params=10,
        macs=100,
    )
    certificate = Certificate(subject=name, expected=(), checks=_checks(artifacts.values()))
    return SimpleNamespace(path=path, manifest=manifest, certificate=lambda: certificate)


def _checks(artifacts: Iterable[SimpleNamespace]) -> tuple[Check, ...]:
    """What a certificate says about files below fp32: how far off they were when they were exported."""
    errors = {"noise_0": 0.02, "photo_0": 0.01, "zeros": 0.5}
    rows = tuple(
        InputComparison(
            name=name, relative_error=error, absolute=False, max_abs_error=error, sqnr_db=None, top1="equal"
        )
        for name, error in errors.items()
    )
    lower = [artifact.format for artifact in artifacts if artifact.dtype != "float32"]
    return tuple(
        Check(name=f"artifact/{fmt}", stage="artifact", passed=True, message="", inputs=rows) for fmt in lower
    )


class PretendDevice:
    """Answers each visit at once: 10 ms, unless `answers` has something else for the row's label."""

    def __init__(self, answers=None, interrupt_at=None, info=DEVICE):
        self.answers, self.interrupt_at, self._info = answers or {}, interrupt_at, info
        self.visited = []

    runner = "python"
    runtimes = None

    def info(self):
        return self._info

    def default_threads(self):
        return 1

    def prepare(self, rows, folder):
        pass

    def run_visit(self, request):
        if len(self.visited) == self.interrupt_at:
            raise KeyboardInterrupt
        self.visited.append(request.visit.index)
        answer = self.answers.get(request.row.label, 10_000_000)
        return (
            answer(request) if callable(answer) else make_records(request.visit, request.row, [answer] * 40)
        )


def pretend_bundles(tmp_path, monkeypatch):
    """`make(name, label=None, **changes)` writes a bundle that can be read until the test ends, and returns its row."""
    made = {}

    def make(name, label=None, formats=FORMATS, **changes):
        path = tmp_path / "bundles" / name
        path.mkdir(parents=True)
        for fmt in formats:
            (path / f"model.{fmt}").write_bytes(b"model")
        outputs = {n: np.zeros((1, 10)) for n in ("photo_0", "noise_0")}
        write_golden(path / "golden.safetensors", np.zeros((1, 3, 8, 8), np.float32), outputs)
        sha = hashlib.sha256((path / "golden.safetensors").read_bytes()).hexdigest()
        made[path] = fake_bundle(path, name, formats, golden_sha256=sha, **changes)
        return BenchRow(path, label)

    monkeypatch.setitem(sys.modules, "finet_deploy.export", SimpleNamespace(read_bundle=made.__getitem__))
    return make
