"""Is the file on the phone still the same function? The golden outputs that came back, judged by the certificate's
comparator, before a row may be timed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from finet_deploy.bench.golden import OUTPUT, GoldenFile
from finet_deploy.bench.protocol import Row
from finet_deploy.errors import FinetDeployError
from finet_deploy.files import read_bounded
from finet_deploy.verify.certificate import Certificate
from finet_deploy.verify.compare import compare
from finet_deploy.verify.precision import artifact_limits

__all__ = ["MAX_OUTPUT_BYTES", "Equivalence", "golden_limits", "judge", "read_outputs"]

MAX_OUTPUT_BYTES = 64 << 20
MAX_INDEX_BYTES = 1 << 20
MAX_CERTIFICATE_BYTES = 8 << 20

Count = Annotated[int, Meta(ge=0)]


class Equivalence(msgspec.Struct, frozen=True, kw_only=True):
    """One file on one phone. errors: norm-relative, by golden input; null where the outputs cannot be compared.

    limits: the certificate's. top1_agreement: share of inputs with the same class. problem: why it did not pass.
    """

    artifact_sha256: str
    errors: dict[str, float | None]
    limits: dict[str, float]
    top1_agreement: float | None
    passed: bool
    problem: str | None = None


class _Output(msgspec.Struct, kw_only=True):
    name: str
    shape: tuple[Count, ...]
    offset: Count
    bytes: Count


class _Index(msgspec.Struct, kw_only=True):
    schema_version: int
    dtype: str
    byte_order: str
    outputs: list[_Output]


def read_outputs(path: Path) -> dict[str, NDArray[np.float32]]:
    """What a runner wrote with `--outputs`: raw little-endian fp32, and `<path>.json` which says where each one is.

    FinetDeployError for an index that does not fit the data: it came from a phone.
    """
    index_path = path.with_name(path.name + ".json")
    data = read_bounded(path, MAX_OUTPUT_BYTES)
    try:
        index = msgspec.json.decode(read_bounded(index_path, MAX_INDEX_BYTES), type=_Index)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _bad(f"no index of outputs: {error}") from error
    if (index.schema_version, index.dtype, index.byte_order) != (1, "float32", "little"):
        raise _bad(f"outputs are {index.dtype}, {index.byte_order}, version {index.schema_version}")
    found = {}
    for output in index.outputs:
        count = 1
        for extent in output.shape:
            count = min(count * extent, MAX_OUTPUT_BYTES)
        if count == 0 or 4 * count != output.bytes or output.offset + output.bytes > len(data):
            raise _bad(f"output {output.name[:40]!r} does not fit its {len(data)} bytes")
        values = np.frombuffer(data, dtype="<f4", count=count, offset=output.offset)
        found[output.name] = values.reshape(output.shape).astype(np.float32)
    return found


def golden_limits(row: Row, bundle: Path) -> dict[str, float]:
    """Golden input -> largest norm-relative error: the job's limits, and the certificate's for all other inputs."""
    path = bundle / "certificate.json"
    if not path.is_file():
        return dict(row.golden.output_limits)
    try:
        data = msgspec.json.decode(read_bounded(path, MAX_CERTIFICATE_BYTES))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FinetDeployError(
            f"not a certificate: {error}", where=str(path), do="export it again"
        ) from error
    names = _golden_names(bundle / row.golden.file)
    certificate = Certificate.from_json_object(data)
    stated = artifact_limits(row.artifact.format, row.artifact.dtype, certificate, names)
    return {**stated, **row.golden.output_limits}


def judge(
    row: Row, golden: GoldenFile, outputs: Mapping[str, NDArray[np.float32]], limits: Mapping[str, float]
) -> Equivalence:
    """Compare the outputs of a phone with the golden ones; every input that has a limit must be there and keep it."""
    errors: dict[str, float | None] = {}
    agreements = []
    problem = None
    for name, limit in limits.items():
        candidate = {name: outputs[name]} if name in outputs else {}
        comparison = compare({name: golden.output(name)}, candidate)
        errors[name] = error = comparison.max_error if comparison.comparable else None
        if comparison.top1_agreement is not None:
            agreements.append(comparison.top1_agreement)
        if error is None or not error <= limit:
            shown = comparison.problems[0].found if error is None else f"norm-relative error {error:.1e}"
            problem = problem or f"wrong output on {name!r}: {shown}, limit {limit:.1e}"
    return Equivalence(
        artifact_sha256=row.artifact.sha256,
        errors=errors,
        limits=dict(limits),
        top1_agreement=sum(agreements) / len(agreements) if agreements else None,
        passed=problem is None and bool(limits),
        problem=problem,
    )


def _golden_names(path: Path) -> list[str]:
    try:
        with safe_open(str(path), framework="numpy") as file:
            return [key.removeprefix(OUTPUT) for key in file.keys() if key.startswith(OUTPUT)]  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise FinetDeployError(f"cannot read: {error}", where=str(path), do="export it again") from error


def _bad(found: str) -> FinetDeployError:
    return FinetDeployError(
        found, where="the runner's outputs", do="check the runner and the phone's storage"
    )
