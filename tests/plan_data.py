"""Small bundles and the jobs that are planned from them: golden for `bench.plan` and for the app's planner.

`python -m tests.plan_data` writes them anew; do that only when a change of the plan is meant.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import numpy as np

from finet_deploy.bench.plan import BenchRow, build_job
from finet_deploy.bench.protocol import DeviceInfo, Job, Reading
from finet_deploy.bench.schedule import plan_visits
from finet_deploy.bench.settings import load_preset
from finet_deploy.export.bundle import Golden
from finet_deploy.export.schema import (
    ArtifactEntry,
    CertificateEntry,
    GoldenEntry,
    Manifest,
    SourceEntry,
    TensorEntry,
    encode_manifest,
)
from finet_deploy.files import sha256_bytes
from finet_deploy.verify.certificate import CONDITIONING, Certificate, Check
from finet_deploy.verify.compare import InputComparison

FOLDER = Path(__file__).resolve().parent / "data" / "plan"
CREATED = "2026-11-21T00:00:00+00:00"
RUNTIMES = {"pte": "executorch", "onnx": "onnxruntime", "ptl": "torch_mobile"}
PHONE = DeviceInfo(
    name="Example Phone 7",
    kind="android",
    emulated=False,
    cpu_model=Reading(value="Example SoC in Example Phone 7"),
    cpu_count=8,
    machine=Reading(value="aarch64"),
    operating_system=Reading(value="Android 15"),
    memory_mib=Reading(value=7600),
)
# job -> bundles, preset, threads, mixed_fusion, the runtimes that the runner has
CASES = {
    "two.json": (("net_a", "net_b"), "quick", 2, False, ("executorch", "onnxruntime", "torch_mobile")),
    "fusion.json": (("net_b", "net_b_unfused"), "smoke", 1, True, ("onnxruntime",)),
    "one.json": (("net_a",), "paper", 4, False, ("torch_mobile", "executorch")),
    "int8.json": (("net_c_int8",), "demo", 1, False, ("executorch", "onnxruntime")),
    "fp16.json": (("net_c_fp16",), "smoke", 1, False, ("executorch", "onnxruntime")),
}
SCHEDULES = [((1,), 3), ((2,), 1), ((2,), 5), ((7,), 3), ((5, 5), 12), ((3, 4, 2), 10), ((6, 6, 6), 2)]


def plan(bundles, preset, threads, mixed_fusion, supported) -> Job:
    """The Python plan of a case, made at a fixed moment."""
    job = build_job(
        [BenchRow(FOLDER / name) for name in bundles],
        device=PHONE,
        settings=load_preset(preset),
        threads=threads,
        runtimes=None,
        folder=FOLDER / "run",
        mixed_fusion=mixed_fusion,
        runner="app",
        supported=supported,
    )
    return msgspec.structs.replace(job, created_utc=CREATED, tool_version="0.1.0")


def encode(job: Job) -> bytes:
    """As it stands in `job.json`."""
    return msgspec.json.format(msgspec.json.encode(job), indent=1) + b"\n"


def schedules() -> str:
    """Orders of visits: sizes of the groups, rounds, and (round, position, row) of each visit."""
    found = []
    for sizes, rounds in SCHEDULES:
        groups = [[f"{g}/{n}" for n in range(size)] for g, size in enumerate(sizes)]
        visits = [[visit.round, visit.position, visit.row] for visit in plan_visits(groups, rounds)]
        found.append({"groups": groups, "rounds": rounds, "visits": visits})
    return json.dumps(found) + "\n"


def cases() -> str:
    """What the app's tests are told of `CASES`."""
    names = ("bundles", "preset", "threads", "mixed_fusion", "supported")
    return json.dumps({job: dict(zip(names, case)) for job, case in CASES.items()}, indent=1) + "\n"


def write_bundle(
    folder: Path, formats: tuple[str, ...], *, fused: bool, seed: int, name: str, dtype: str = "float32"
) -> None:
    """A bundle that `read_bundle` takes; its networks are no networks."""
    rng = np.random.default_rng(seed)
    inputs = {
        key: rng.standard_normal((1, 3, 4, 4)).astype(np.float32) for key in ("large", "photo_0", "noise_0")
    }
    outputs = {key: rng.standard_normal((1, 2)) for key in inputs}
    files = {f"model.{fmt}": f"{folder.name} {fmt}".encode() for fmt in formats}
    files["golden.safetensors"] = Golden(inputs, outputs).encode()
    files["certificate.json"] = json.dumps(
        _certificate(seed, () if dtype == "float32" else formats).to_json_object(), indent=1
    ).encode()
    files["certificate.xml"] = b"<testsuites/>\n"
    sha256 = {file: sha256_bytes(data) for file, data in files.items()}
    entries = {
        fmt: ArtifactEntry(
            file=f"model.{fmt}",
            format=fmt,
            dtype=dtype,
            runtime=RUNTIMES[fmt],
            runtime_version="1",
            exporter_version="1",
            sha256=sha256[f"model.{fmt}"],
            bytes=len(files[f"model.{fmt}"]),
            op_counts={"conv": 3},
            normalization_ops=0,
            delegates=1 if fmt == "pte" else None,
            delegated_share=0.875 if fmt == "pte" else None,
            nodes_outside=2 if fmt == "pte" else None,
            notices=("legacy target",) if fmt == "ptl" else (),
        )
        for fmt in formats
    }
    manifest = Manifest(
        tool_version="0.1.0",
        created_utc=CREATED,
        name=name,
        model_config=None,
        source=SourceEntry(kind="seeded", trained=False, seed=seed),
        fused=fused,
        fuse_report={"left": 0},
        weights_sha256="0" * 64,
        params=1000 + seed,
        macs=50_000 + seed,
        program_normalization_ops=0,
        preprocessing=None,
        input=TensorEntry(name="input", shape=(1, 3, 4, 4), layout="NCHW", dtype="float32"),
        output=TensorEntry(name="output", shape=(1, 2), layout="NC", dtype="float32"),
        artifacts=entries,
        golden=GoldenEntry(
            file="golden.safetensors", sha256=sha256["golden.safetensors"], inputs=tuple(inputs)
        ),
        certificate=CertificateEntry(
            file="certificate.json",
            sha256=sha256["certificate.json"],
            junit_file="certificate.xml",
            junit_sha256=sha256["certificate.xml"],
            passed=True,
        ),
    )
    folder.mkdir(parents=True)
    for file, data in {**files, "manifest.json": encode_manifest(manifest)}.items():
        (folder / file).write_bytes(data)


def _certificate(seed: int, lower: tuple[str, ...]) -> Certificate:
    """Of a network that is ill-conditioned on its large input, so that the limit there grows. lower: the formats whose
    files are below fp32: one is off by nearly nothing on the large input, and no two by the same."""
    errors = {"large": 3.1e-4 + seed / 7e6, "photo_0": 2e-7, "noise_0": 1e-7}
    checks = [_check(CONDITIONING, "conditioning", errors, ["large"])]
    for n, fmt in enumerate(lower):
        errors = {"noise_0": 0.3, "large": 3e-7 if n == 0 else 0.17, "photo_0": 0.013 + n / 70}
        checks.append(_check(f"artifact/{fmt}", "artifact", errors, []))
    return Certificate(
        subject="made by hand", expected=tuple(check.name for check in checks), checks=tuple(checks)
    )


def _check(name: str, stage: str, errors: dict[str, float], ill_conditioned: list[str]) -> Check:
    rows = tuple(
        InputComparison(
            name=key, relative_error=error, absolute=False, max_abs_error=error, sqnr_db=100.0, top1="equal"
        )
        for key, error in errors.items()
    )
    return Check(
        name=name,
        stage=stage,
        passed=True,
        message="made by hand",
        figures={"ill_conditioned": ill_conditioned},
        inputs=rows,
    )


def main() -> None:
    """Write everything anew."""
    shutil.rmtree(FOLDER, ignore_errors=True)
    write_bundle(FOLDER / "net_a", ("pte", "onnx", "ptl"), fused=True, seed=1, name="net a")
    write_bundle(FOLDER / "net_b", ("onnx", "ptl", "pte"), fused=True, seed=2, name="net b")
    write_bundle(FOLDER / "net_b_unfused", ("onnx", "ptl"), fused=False, seed=3, name="net b")
    write_bundle(FOLDER / "net_c_int8", ("pte", "onnx"), fused=True, seed=4, name="net c", dtype="int8")
    write_bundle(FOLDER / "net_c_fp16", ("pte",), fused=True, seed=4, name="net c", dtype="float16")
    (FOLDER / "cases.json").write_text(cases())
    (FOLDER / "schedules.json").write_text(schedules())
    for job, case in CASES.items():
        (FOLDER / job).write_bytes(encode(plan(*case)))


if __name__ == "__main__":
    main()
