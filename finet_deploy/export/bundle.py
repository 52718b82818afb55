"""The bundle folder: reading it with distrust, and the golden tensors in it. No torch.

A bundle comes from elsewhere, so every path in it must stay inside its folder, every file must have the hash that
the manifest gives, and only formats that hold no code (JSON, safetensors) are parsed before that is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as safetensors_load
from safetensors.numpy import save as safetensors_save

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.export.operators import MAX_OPERATORS_BYTES, Operators, decode_operators
from finet_deploy.export.schema import ArtifactEntry, Manifest, TensorEntry, decode_manifest
from finet_deploy.files import read_bounded, resolve_inside, sha256_file
from finet_deploy.names import ModelConfig
from finet_deploy.verify import Certificate

__all__ = [
    "CERTIFICATE_FILE",
    "GOLDEN_FILE",
    "JUNIT_FILE",
    "MANIFEST_FILE",
    "Bundle",
    "Golden",
    "ListedFile",
    "bundle_files",
    "check_file",
    "check_verdict",
    "listed_files",
    "read_bundle",
    "read_manifest",
]

MANIFEST_FILE = "manifest.json"
CERTIFICATE_FILE, JUNIT_FILE = "certificate.json", "certificate.xml"
GOLDEN_FILE = "golden.safetensors"

MAX_MANIFEST_BYTES = 4 << 20
MAX_CERTIFICATE_BYTES = 16 << 20
MAX_GOLDEN_BYTES = 1 << 30
AGAIN = "copy the bundle again, or export the model again"

DTYPES = {"float32": np.float32, "float64": np.float64}


@dataclass(frozen=True)
class Golden:
    """Inputs (1, 3, H, W) in fp32 by name, and the unfused network's outputs (1, classes) for them in fp64."""

    inputs: dict[str, NDArray[np.float32]]
    outputs: dict[str, NDArray[np.float64]]

    def encode(self) -> bytes:
        """The safetensors form: `input.<name>` and `output.<name>`."""
        tensors: dict[str, NDArray[Any]] = {f"input.{name}": x for name, x in self.inputs.items()}
        tensors |= {f"output.{name}": y for name, y in self.outputs.items()}
        return safetensors_save({key: np.ascontiguousarray(value) for key, value in tensors.items()})


@dataclass(frozen=True)
class Bundle:
    """A folder whose files are all there and have the right hashes (when it comes from `read_bundle`)."""

    path: Path
    manifest: Manifest

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats it holds, in the order in which they were exported."""
        return tuple(self.manifest.artifacts)

    @property
    def model_config(self) -> ModelConfig | None:
        """The network's configuration, None for a network from outside the zoo."""
        config = self.manifest.model_config
        return None if config is None else ModelConfig.from_json_object(dict(config))

    def artifact(self, fmt: str) -> ArtifactEntry:
        """What the manifest says about the file of this format. UsageError when there is none."""
        if fmt not in self.manifest.artifacts:
            raise UsageError(
                f"the bundle has no {fmt!r} file", where=str(self.path), do=f"use {', '.join(self.formats)}"
            )
        return self.manifest.artifacts[fmt]

    def artifact_path(self, fmt: str) -> Path:
        """The file of this format. UsageError when there is none."""
        return resolve_inside(self.path, self.artifact(fmt).file)

    def golden(self) -> Golden:
        """The golden tensors. FinetDeployError when names, shapes or dtypes are not those of the manifest."""
        entry = self.manifest.golden
        path = resolve_inside(self.path, entry.file)
        try:
            tensors = safetensors_load(read_bounded(path, MAX_GOLDEN_BYTES))
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise FinetDeployError(f"not a safetensors file: {error}", where=str(path), do=AGAIN) from error
        if len(tensors) != 2 * len(entry.inputs):
            raise FinetDeployError(
                f"{len(tensors)} tensors for {len(entry.inputs)} inputs and outputs",
                where=str(path),
                do=AGAIN,
            )
        output = msgspec.structs.replace(self.manifest.output, dtype="float64")
        return Golden(
            {name: _checked(tensors, f"input.{name}", self.manifest.input, path) for name in entry.inputs},
            {name: _checked(tensors, f"output.{name}", output, path) for name in entry.inputs},
        )

    def certificate(self) -> Certificate:
        """The certificate that the bundle was exported with; its verdict is worked out again on reading."""
        path = resolve_inside(self.path, self.manifest.certificate.file)
        try:
            data = msgspec.json.decode(read_bounded(path, MAX_CERTIFICATE_BYTES))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FinetDeployError(f"not a certificate: {error}", where=str(path), do=AGAIN) from error
        return Certificate.from_json_object(data)

    def operators(self) -> Operators | None:
        """From the files' operators to the network's modules; None in a bundle from before this was written."""
        entry = self.manifest.operators
        if entry is None:
            return None
        path = resolve_inside(self.path, entry.file)
        return decode_operators(read_bounded(path, MAX_OPERATORS_BYTES), str(path))

    def to_json_object(self) -> dict[str, Any]:
        """The manifest as plain dicts and lists, and where the folder is."""
        return {"path": str(self.path), **msgspec.to_builtins(self.manifest)}

    def summary_lines(self) -> list[str]:
        """For people: what it is, then each file with what sets its speed, then what must be known about it."""
        manifest = self.manifest
        form = "fused" if manifest.fused else "not fused"
        verdict = "passed" if manifest.certificate.passed else "FAILED"
        lines = [
            f"{manifest.name}, {form}: {manifest.params:,} parameters, {manifest.macs / 1e6:.2f} M multiply-adds, "
            f"certificate {verdict}"
        ]
        for fmt, entry in manifest.artifacts.items():
            line = f"  {entry.file}: {entry.bytes / 1e6:.1f} MB for {entry.runtime} {entry.runtime_version}"
            line += "" if entry.dtype == "float32" else f", {entry.dtype}"
            if entry.delegates is not None and entry.delegated_share is not None:
                plural = "" if entry.delegates == 1 else "s"
                line += (
                    f", {entry.delegates} delegate{plural} with {entry.delegated_share:.0%} of the operators"
                )
            if entry.normalization_ops:
                line += f", {entry.normalization_ops} normalizations left"
            if entry.passes:
                plural = "" if len(entry.passes) == 1 else "es"
                names = ", ".join(item.name for item in entry.passes)
                line += f", {len(entry.passes)} pass{plural} for {entry.core} ({names})"
            lines.append(line)
            lines += [f"  {fmt}: {notice}" for notice in entry.notices]
        return [*lines, *_quantization_lines(manifest), f"  in {self.path}"]


def _quantization_lines(manifest: Manifest) -> list[str]:
    entry = manifest.quantization
    if entry is None:
        return []
    strength = entry.equalization_strength
    how = "not equalized" if strength is None else f"equalized with strength {strength:g}"
    lines = [f"  int8: calibrated on {entry.calibration_images} images of {entry.calibration_source}, {how}"]
    known = [layer for layer in entry.layers if layer.sqnr_db is not None]
    if known:
        worst = min(known, key=lambda layer: layer.sqnr_db or 0.0)
        lines.append(
            f"  int8: the layer that loses most is {worst.path}, with an SQNR of {worst.sqnr_db:.1f} dB"
        )
    return lines


def _checked(
    tensors: Mapping[str, NDArray[Any]], key: str, expected: TensorEntry, path: Path
) -> NDArray[Any]:
    if key not in tensors:
        raise FinetDeployError(f"tensor {key} is missing", where=str(path), do=AGAIN)
    tensor = tensors[key]
    if tensor.shape != expected.shape or tensor.dtype != DTYPES.get(expected.dtype):
        raise FinetDeployError(
            f"tensor {key} is {tensor.dtype} {tensor.shape}, the manifest says {expected.dtype} {expected.shape}",
            where=str(path),
            do=AGAIN,
        )
    return tensor


def read_bundle(path: Path | str) -> Bundle:
    """Read a bundle folder and check every file in it: present, of the right size and SHA-256, inside the folder.

    Raises UsageError when `path` is no bundle at all, FinetDeployError, naming the file, when it is a damaged one.
    """
    path = Path(path)
    manifest = read_manifest(path)
    for entry in listed_files(manifest):
        check_file(path, entry)
    bundle = Bundle(path, manifest)
    bundle.golden()
    bundle.operators()
    check_verdict(bundle)
    return bundle


def read_manifest(path: Path) -> Manifest:
    """The manifest of a bundle's folder, whose files are not looked at. Raises as `read_bundle`."""
    if not path.is_dir():
        found = "a bundle is a folder, this is a file" if path.exists() else "no such bundle"
        raise UsageError(found, where=str(path), do="give the folder that `finet-deploy export` wrote")
    if not (path / MANIFEST_FILE).exists():
        raise UsageError(
            f"not a bundle: the folder has no {MANIFEST_FILE}",
            where=str(path),
            do="run `finet-deploy export`",
        )
    where = resolve_inside(path, MANIFEST_FILE)
    manifest = decode_manifest(read_bounded(where, MAX_MANIFEST_BYTES), str(where))
    for fmt, entry in manifest.artifacts.items():
        if entry.format != fmt:
            raise FinetDeployError(
                f"artifact {fmt!r} says that its format is {entry.format!r}", where=str(where), do=AGAIN
            )
    return manifest


def check_verdict(bundle: Bundle) -> None:
    """FinetDeployError when the manifest's verdict is not the certificate's."""
    if bundle.certificate().passed is not bundle.manifest.certificate.passed:
        where = str(bundle.path / MANIFEST_FILE)
        raise FinetDeployError("manifest and certificate disagree on the verdict", where=where, do=AGAIN)


class ListedFile(NamedTuple):
    """A file that the manifest lists. bytes: None where it does not say."""

    file: str
    sha256: str
    bytes: int | None


def listed_files(manifest: Manifest) -> list[ListedFile]:
    """All files of a bundle but the manifest, those for the runtimes first."""
    certificate, golden = manifest.certificate, manifest.golden
    files = [ListedFile(entry.file, entry.sha256, entry.bytes) for entry in manifest.artifacts.values()]
    files += [
        ListedFile(golden.file, golden.sha256, None),
        ListedFile(certificate.file, certificate.sha256, None),
        ListedFile(certificate.junit_file, certificate.junit_sha256, None),
    ]
    if manifest.operators is not None:
        files.append(ListedFile(manifest.operators.file, manifest.operators.sha256, None))
    return files


def bundle_files(manifest: Manifest) -> set[str]:
    """The names of all files of a bundle."""
    return {MANIFEST_FILE, *(entry.file for entry in listed_files(manifest))}


def check_file(folder: Path, entry: ListedFile) -> None:
    """FinetDeployError, naming the file, when it is missing or not the one that the manifest lists."""
    path = resolve_inside(folder, entry.file)
    if not path.is_file():
        raise FinetDeployError("a file of the bundle is missing", where=str(path), do=AGAIN)
    if entry.bytes is not None and path.stat().st_size != entry.bytes:
        raise FinetDeployError(
            f"file has {path.stat().st_size} bytes where the manifest says {entry.bytes}",
            where=str(path),
            do=AGAIN,
        )
    if sha256_file(path) != entry.sha256:
        raise FinetDeployError(
            "file was changed: its SHA-256 is not the manifest's", where=str(path), do=AGAIN
        )
