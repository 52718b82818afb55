"""Visits of the native runner: requests for one row of a bundle, run directly or under emulation."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from finet_deploy.bench.plan import BenchRow, build_job, visit_request
from finet_deploy.bench.protocol import Record, Settings, VisitRequest
from finet_deploy.bench.records import decode_lines
from finet_deploy.errors import FinetDeployError
from finet_deploy.export import read_bundle
from finet_deploy.export.bundle import MANIFEST_FILE as BUNDLE_MANIFEST
from finet_deploy.export.schema import encode_manifest
from finet_deploy.files import sha256_file
from finet_deploy.runner import host_target, runner_command, runner_folder
from tests.bench_fakes import DEVICE, SETTINGS
from tests.shared_bundles import shared_folder

RUNTIMES = ("executorch", "onnxruntime")
FUZZ = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
ONCE = msgspec.structs.replace(SETTINGS, rounds=1, aa_row=False)


def folder_or_skip(target: str | None = None) -> Path:
    """The built runner of a target; the test is skipped, saying so, where nobody built it."""
    try:
        return runner_folder(target or host_target())
    except FinetDeployError as error:
        pytest.skip(str(error))


def export_tiny(path: Path, *, fuse_model: bool = True, formats: tuple[str, ...] = ("pte", "onnx")) -> Path:
    """A small network with two FBN layers."""
    import torch

    from finet_deploy.export import export
    from tests.helpers import tiny_network

    model = tiny_network()
    generator = torch.Generator().manual_seed(1)
    inputs = {
        "noise_0": torch.randn(1, 3, 32, 32, generator=generator),
        "photo_0": torch.rand(1, 3, 32, 32, generator=generator) * 4 - 2,
        "photo_1": torch.rand(1, 3, 32, 32, generator=generator) * 4 - 2,
    }
    export(
        model,
        path,
        formats=formats,
        fuse_model=fuse_model,
        inputs=inputs,
        name="tiny",
        source={"kind": "test", "trained": False},
    )
    return path


def shared_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That network, fused, exported once for all tests in all three formats: an export costs ten seconds and more."""
    with shared_folder(tmp_path_factory, "tiny") as folder:
        path = folder / "tiny"
        return path if path.is_dir() else export_tiny(path, formats=("pte", "onnx", "ptl"))


def with_formats(bundle: Path, target: Path, formats: tuple[str, ...]) -> Path:
    """The same bundle with files of these formats alone."""
    whole = read_bundle(shutil.copytree(bundle, target))
    artifacts = whole.manifest.artifacts
    for fmt in set(artifacts) - set(formats):
        whole.artifact_path(fmt).unlink()
    kept = {fmt: artifacts[fmt] for fmt in formats}
    manifest = msgspec.structs.replace(whole.manifest, artifacts=kept)
    (target / BUNDLE_MANIFEST).write_bytes(encode_manifest(manifest))
    return target


def requests_for(bundle: Path, *, settings: Settings = ONCE, threads: int = 1) -> dict[str, VisitRequest]:
    """A request by runtime."""
    job = build_job(
        [BenchRow(bundle)],
        device=DEVICE,
        settings=settings,
        threads=threads,
        runtimes=["executorch", "onnxruntime"],
        folder=bundle,
    )
    requests = [visit_request(job, visit, bundle) for visit in job.visits]
    return {request.row.artifact.runtime: request for request in requests}


def with_artifact(request: VisitRequest, path: Path) -> VisitRequest:
    """The same visit of another file, which the job vouches for."""
    artifact = msgspec.structs.replace(request.row.artifact, sha256=sha256_file(path))
    row = msgspec.structs.replace(request.row, artifact=artifact)
    return msgspec.structs.replace(request, row=row, artifact_path=str(path))


def with_golden(request: VisitRequest, path: Path, **changes: object) -> VisitRequest:
    """The same visit against another golden file."""
    golden = msgspec.structs.replace(request.row.golden, **changes)
    row = msgspec.structs.replace(request.row, golden=golden)
    return msgspec.structs.replace(request, row=row, golden_path=str(path))


@dataclass(frozen=True)
class Done:
    """How a runner ended. status is negative for a signal."""

    status: int
    records: list[Record]
    stderr: str
    folder: Path

    @property
    def last(self) -> Record:
        return self.records[-1]

    def outputs(self) -> dict[str, np.ndarray]:
        """What `--outputs` wrote."""
        index = msgspec.json.decode((self.folder / "outputs.bin.json").read_bytes())
        data = (self.folder / "outputs.bin").read_bytes()
        assert (index["dtype"], index["byte_order"]) == ("float32", "little")
        assert sum(item["bytes"] for item in index["outputs"]) == len(data)
        return {
            item["name"]: np.frombuffer(data, "<f4", item["bytes"] // 4, item["offset"]).reshape(
                item["shape"]
            )
            for item in index["outputs"]
        }


def run_native(
    request: VisitRequest | bytes,
    scratch: Path,
    *options: str,
    command: tuple[str, ...] | None = None,
    timeout: float = 120.0,
) -> Done:
    """Run one visit in `scratch`. Records are read by the protocol's own decoder: an unknown field fails."""
    scratch.mkdir(parents=True, exist_ok=True)
    for name in ("records.jsonl", "records.jsonl.unfinished"):
        (scratch / name).unlink(missing_ok=True)
    data = request if isinstance(request, bytes) else msgspec.json.encode(request)
    (scratch / "request.json").write_bytes(data)
    words = [*(command or runner_command(folder_or_skip())), "request.json", "records.jsonl", *options]
    environment = {"PATH": os.environ["PATH"]}
    done = subprocess.run(words, cwd=scratch, env=environment, capture_output=True, timeout=timeout)
    records: list[Record] = []
    if (scratch / "records.jsonl").exists():
        with (scratch / "records.jsonl").open("rb") as stream:
            records, tail = decode_lines(stream, "records")
        assert tail == 0
    assert not (records and (scratch / "records.jsonl.unfinished").exists())
    return Done(done.returncode, records, done.stderr.decode("utf-8", "replace"), scratch)


def copy_runner(folder: Path, to: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(folder, to)
    return to
