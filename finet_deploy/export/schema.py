"""The manifest of a bundle, as data. `README.md` beside this file tells the meaning of every field."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from finet_deploy.errors import FinetDeployError

__all__ = [
    "READABLE_VERSIONS",
    "SCHEMA_VERSION",
    "ArtifactEntry",
    "CertificateEntry",
    "GoldenEntry",
    "Manifest",
    "OperatorsEntry",
    "PassEntry",
    "PreprocessingEntry",
    "QuantizationEntry",
    "QuantizedLayer",
    "SourceEntry",
    "TensorEntry",
    "decode_manifest",
    "encode_manifest",
]

SCHEMA_VERSION = 2
# Version 1: before deploy passes were recorded, operators were written, and int8. Its artifacts have no `passes` and no
# `core`, its manifest no `quantization`.
READABLE_VERSIONS = (1, SCHEMA_VERSION)

Count = Annotated[int, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
Text = Annotated[str, Meta(min_length=1)]
PerChannel = tuple[float, float, float]
Shape = Annotated[tuple[Positive, ...], Meta(min_length=2)]


class _Data(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all entries: immutable, by keyword, nothing unknown."""


class SourceEntry(_Data, frozen=True, kw_only=True):
    """Where the weights come from."""

    kind: Text
    trained: bool | None = None
    seed: int | None = None
    calibration_images: Count | None = None
    path: str | None = None
    sha256: Sha256 | None = None
    dataset: str | None = None
    notes: tuple[str, ...] = ()


class PreprocessingEntry(_Data, frozen=True, kw_only=True):
    """How a picture becomes the input."""

    resize: Positive
    crop: Positive
    mean: PerChannel
    std: PerChannel
    interpolation: Text


class TensorEntry(_Data, frozen=True, kw_only=True):
    """The input or the output of every artifact."""

    name: Text
    shape: Shape
    layout: Text
    dtype: Text


class PassEntry(_Data, frozen=True, kw_only=True):
    """One deploy pass that changed the network before this file was written."""

    name: Text
    changes: Annotated[tuple[str, ...], Meta(min_length=1)]
    max_error: Annotated[float, Meta(ge=0)]


class ArtifactEntry(_Data, frozen=True, kw_only=True):
    """One exported file. `None`: the format has no such thing."""

    file: Text
    format: Text
    dtype: Text
    runtime: Text
    runtime_version: Text
    exporter_version: Text
    sha256: Sha256
    bytes: Positive
    op_counts: dict[str, Positive]
    normalization_ops: Count
    delegates: Count | None = None
    delegated_share: Share | None = None
    nodes_outside: Count | None = None
    outside_ops: dict[str, Positive] = {}
    bytecode_version: Count | None = None
    operators: tuple[str, ...] = ()
    fp32_ops: dict[str, Positive] = {}
    notices: tuple[str, ...] = ()
    passes: tuple[PassEntry, ...] | None = None
    core: str | None = None


class GoldenEntry(_Data, frozen=True, kw_only=True):
    """The golden inputs and outputs."""

    file: Text
    sha256: Sha256
    inputs: Annotated[tuple[Text, ...], Meta(min_length=1)]


class OperatorsEntry(_Data, frozen=True, kw_only=True):
    """The way from the files' operators to the network's modules, for profiles."""

    file: Text
    sha256: Sha256


class CertificateEntry(_Data, frozen=True, kw_only=True):
    """The certificate, as JSON and as JUnit XML."""

    file: Text
    sha256: Sha256
    junit_file: Text
    junit_sha256: Sha256
    passed: bool


class QuantizedLayer(_Data, frozen=True, kw_only=True):
    """A convolution or linear layer of an int8 network."""

    path: Text
    sqnr_db: float | None
    weight_spread: float
    precision: Text


class QuantizationEntry(_Data, frozen=True, kw_only=True):
    """How an int8 network was made."""

    calibration_source: Text
    calibration_images: Positive
    calibration_sha256: Sha256
    calibration_built_in: bool
    held_out_images: Positive
    equalization_strength: float | None
    equalization_tried: dict[str, float | None]
    simulated_sqnr_db: float | None
    fp32_layers: tuple[Text, ...] = ()
    layers: tuple[QuantizedLayer, ...]


class Manifest(_Data, frozen=True, kw_only=True):
    """Everything that is known about a bundle, but its tensors."""

    schema_version: int = SCHEMA_VERSION
    tool_version: Text
    created_utc: Text
    name: Text
    model_config: dict[str, str | int | bool | None] | None
    source: SourceEntry
    fused: bool
    fuse_report: dict[str, Any]
    weights_sha256: Sha256
    params: Count
    macs: Count
    program_normalization_ops: Count
    preprocessing: PreprocessingEntry | None
    input: TensorEntry
    output: TensorEntry
    artifacts: Annotated[dict[str, ArtifactEntry], Meta(min_length=1)]
    quantization: QuantizationEntry | None = None
    golden: GoldenEntry
    certificate: CertificateEntry
    operators: OperatorsEntry | None = None


class _Version(msgspec.Struct):
    schema_version: int


def encode_manifest(manifest: Manifest) -> bytes:
    """Indented JSON with a newline at its end; every field is written, defaults too."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def decode_manifest(data: bytes, where: str) -> Manifest:
    """The manifest in `data`. FinetDeployError, naming `where`, when it is not one of this schema version."""
    try:
        version = msgspec.json.decode(data, type=_Version).schema_version
        if version not in READABLE_VERSIONS:
            raise FinetDeployError(
                f"manifest has schema_version {version}, this program reads "
                f"{' and '.join(map(str, READABLE_VERSIONS))}",
                where=where,
                do="use the finet-deploy version that wrote it, or export the model again",
            )
        return msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FinetDeployError(
            f"not a bundle's manifest: {error}", where=where, do="export the model again"
        ) from error
