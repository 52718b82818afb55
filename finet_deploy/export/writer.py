"""Writing the files of a bundle into a folder that does not have its final name yet."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from torch import nn

import finet_deploy
from finet_deploy.errors import UsageError
from finet_deploy.export.bundle import CERTIFICATE_FILE, GOLDEN_FILE, JUNIT_FILE, MANIFEST_FILE, Golden
from finet_deploy.export.exported import INPUT_NAME, OUTPUT_NAME, Exported
from finet_deploy.export.macs import count_macs
from finet_deploy.export.operators import OPERATORS_FILE, OnnxOperators, PteOperators, encode_operators
from finet_deploy.export.schema import (
    ArtifactEntry,
    CertificateEntry,
    GoldenEntry,
    Manifest,
    OperatorsEntry,
    PassEntry,
    PreprocessingEntry,
    QuantizationEntry,
    SourceEntry,
    TensorEntry,
    encode_manifest,
)
from finet_deploy.files import atomic_write_bytes, sha256_bytes
from finet_deploy.passes import Applied
from finet_deploy.runtimes import available_runtimes, runtime_of
from finet_deploy.runtimes.android import unloadable_file
from finet_deploy.verify import Certificate, junit_xml

if TYPE_CHECKING:
    from finet_deploy.images import Preprocessing
    from finet_deploy.names import ModelConfig

__all__ = ["Contents", "weights_sha256", "write_artifacts", "write_bundle"]

LAYOUTS = {2: "NC", 4: "NCHW"}


@dataclass(frozen=True)
class Contents:
    """What the manifest says about the network beside what can be read off it."""

    name: str
    config: ModelConfig | None
    source: Mapping[str, Any]
    fused: bool
    preprocessing: Preprocessing | None
    normalization_ops: int
    quantization: QuantizationEntry | None = None


def write_artifacts(
    folder: Path, exported: Mapping[str, Exported], rewritten: Mapping[str, Applied], core: str
) -> dict[str, ArtifactEntry]:
    """Write `model.<format>` for each, and say what it is and which passes (for `core`) made it."""
    entries = {}
    versions = available_runtimes()
    for fmt, item in exported.items():
        file = f"model.{fmt}"
        atomic_write_bytes(folder / file, item.data)
        entries[fmt] = ArtifactEntry(
            file=file,
            format=fmt,
            dtype=item.dtype,
            runtime=runtime_of(fmt),
            runtime_version=versions[runtime_of(fmt)] or "unknown",
            exporter_version=item.exporter_version,
            sha256=sha256_bytes(item.data),
            bytes=len(item.data),
            op_counts=item.op_counts,
            normalization_ops=item.normalization_ops,
            delegates=item.delegates,
            delegated_share=item.delegated_share,
            nodes_outside=item.nodes_outside,
            outside_ops=item.outside_ops,
            bytecode_version=item.bytecode_version,
            operators=item.operators,
            fp32_ops=item.fp32_ops,
            notices=(*item.notices, *_app_notices(folder / file, fmt)),
            passes=tuple(
                PassEntry(name=entry.name, changes=entry.changes, max_error=entry.max_error)
                for entry in rewritten[fmt].entries
            ),
            core=core if rewritten[fmt].entries else None,
        )
    return entries


def _app_notices(path: Path, fmt: str) -> list[str]:
    """What the Android app's runtime would refuse. The file is whole all the same, for this machine and other apps."""
    return [f"the Android app cannot load this file: {problem}" for problem in unloadable_file(path, fmt)]


def write_bundle(
    folder: Path,
    contents: Contents,
    model: nn.Module,
    deploy: nn.Module,
    entries: dict[str, ArtifactEntry],
    golden: Golden,
    certificate: Certificate,
    operators: Mapping[str, PteOperators | OnnxOperators],
) -> Manifest:
    """Write golden tensors, certificate, operators and, last, the manifest beside the artifacts."""
    verdict = msgspec.json.format(msgspec.json.encode(certificate.to_json_object()), indent=2) + b"\n"
    files = {
        GOLDEN_FILE: golden.encode(),
        CERTIFICATE_FILE: verdict,
        JUNIT_FILE: junit_xml(certificate).encode(),
        OPERATORS_FILE: encode_operators(operators),
    }
    for file, data in files.items():
        atomic_write_bytes(folder / file, data)
    x, y = next(iter(golden.inputs.values())), next(iter(golden.outputs.values()))
    report: Any = deploy.fuse_report
    manifest = Manifest(
        tool_version=finet_deploy.__version__,
        created_utc=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        name=contents.name,
        model_config=contents.config.to_json_object() if contents.config else None,
        source=_source(contents.source),
        fused=contents.fused,
        fuse_report=report.to_json_object(),
        weights_sha256=weights_sha256(model),
        params=sum(parameter.numel() for parameter in deploy.parameters()),
        macs=count_macs(deploy, x.shape),
        program_normalization_ops=contents.normalization_ops,
        preprocessing=_preprocessing(contents.preprocessing),
        input=TensorEntry(name=INPUT_NAME, shape=x.shape, layout=LAYOUTS[x.ndim], dtype="float32"),
        output=TensorEntry(name=OUTPUT_NAME, shape=y.shape, layout=_layout(y.ndim), dtype="float32"),
        artifacts=entries,
        quantization=contents.quantization,
        golden=GoldenEntry(
            file=GOLDEN_FILE, sha256=sha256_bytes(files[GOLDEN_FILE]), inputs=tuple(golden.inputs)
        ),
        certificate=CertificateEntry(
            file=CERTIFICATE_FILE,
            sha256=sha256_bytes(verdict),
            junit_file=JUNIT_FILE,
            junit_sha256=sha256_bytes(files[JUNIT_FILE]),
            passed=certificate.passed,
        ),
        operators=OperatorsEntry(file=OPERATORS_FILE, sha256=sha256_bytes(files[OPERATORS_FILE])),
    )
    atomic_write_bytes(folder / MANIFEST_FILE, encode_manifest(manifest))
    return manifest


def _layout(ndim: int) -> str:
    if ndim not in LAYOUTS:
        raise UsageError(
            f"the network's output has {ndim} dimensions", do="export one that returns (N, C) or (N, C, H, W)"
        )
    return LAYOUTS[ndim]


def _source(origin: Mapping[str, Any]) -> SourceEntry:
    # `load_checkpoint` passes on the checkpoint's preprocessing, which has a field of its own in the manifest, and the
    # whole record of its training, of which the data set's name is enough to evaluate the bundle.
    fields = {key: value for key, value in origin.items() if key not in ("preprocessing", "training")}
    training = origin.get("training")
    if isinstance(training, Mapping):
        fields["dataset"] = training.get("dataset")
    try:
        return msgspec.convert(fields, type=SourceEntry)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"source is not a manifest's source entry: {error}", do="see export/README.md"
        ) from error


def _preprocessing(preprocessing: Preprocessing | None) -> PreprocessingEntry | None:
    if preprocessing is None:
        return None
    return msgspec.convert(preprocessing.to_json_object(), type=PreprocessingEntry)


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 over each tensor of the state dict in the order of its names: name, dtype, shape, values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
