"""`export`: from a network in eval mode to a bundle folder that was proved before it got its name.

Everything is written into a hidden folder beside the target, read back, run and judged there, and renamed at the
end. A failing check, a crash, Ctrl-C or a full disk leaves the target as it was.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.export.bundle import MANIFEST_FILE, Bundle, Golden, bundle_files, read_bundle
from finet_deploy.export.executorch import require_one_delegate, to_pte
from finet_deploy.export.exported import Exported, count_normalization_ops, program_op_counts, trace_program
from finet_deploy.export.int8 import int8_file, quantization_entry
from finet_deploy.export.judge import CheckFailed, check_name, judge_files
from finet_deploy.export.onnx import to_onnx
from finet_deploy.export.schema import ArtifactEntry, decode_manifest
from finet_deploy.export.torch_mobile import to_ptl
from finet_deploy.export.writer import Contents, write_artifacts, write_bundle
from finet_deploy.files import read_bounded, replace_directory, temporary_directory_beside
from finet_deploy.fuse import FuseReport, Kept, check_fusible, count_normalization, fuse
from finet_deploy.images import GOLDEN_PHOTOS, default_images, evaluation_inputs, preprocessing_for
from finet_deploy.quantize import Calibration, Quantized, load_calibration, quantize_network
from finet_deploy.runtimes import FORMATS, available_runtimes, require_runtime, runtime_of
from finet_deploy.verify import Certificate, Limits, verify
from finet_deploy.verify.forward import as_dtype, check_inputs, run

if TYPE_CHECKING:
    from finet_deploy.images import Preprocessing
    from finet_deploy.names import ModelConfig

__all__ = ["PRECISIONS", "export"]

PRECISIONS = {"float32": tuple(FORMATS), "int8": ("pte", "onnx")}  # and the formats that have them
Tell = Callable[[str], None]


def export(
    model: nn.Module,
    out: Path | str,
    *,
    formats: Sequence[str] = tuple(FORMATS),
    fuse_model: bool = True,
    inputs: Mapping[str, Tensor] | None = None,
    preprocessing: Preprocessing | None = None,
    name: str | None = None,
    source: Mapping[str, Any] | None = None,
    dtype: str = "float32",
    calibration: Calibration | None = None,
    overwrite: bool = False,
    limits: Limits | None = None,
    progress: Tell | None = None,
) -> Bundle:
    """Fuse, prove, export, read back, run and judge a network, and write it as the bundle folder `out`.

    model: in eval mode, fp32, on the CPU; never changed. formats: of `pte`, `onnx`, `ptl`. fuse_model: False exports
    it as it is, for comparisons. inputs: name -> (1, 3, H, W) fp32; by default made from `preprocessing` and the
    default photographs. preprocessing, name, source: what the manifest says; by default what `create_model` and
    `load_checkpoint` left on the network. dtype: `float32`, or a precision of `PRECISIONS`: `int8`, which is calibrated
    on `calibration` (by default the package's photographs), whose held-out images are then the certificate's
    photographs. progress: told each step as it begins, `2 * len(formats) + 3` in all, one more for int8.

    Raises UsageError for a wrong call (train mode, an unknown format, an existing folder without `overwrite`),
    CheckFailed when a certificate does not pass, FinetDeployError for everything else. In each case nothing is
    written and an existing bundle stays.
    """
    out, tell, limits = Path(out), progress or (lambda _step: None), limits or Limits()
    formats = _checked_formats(formats, dtype)
    _check_target(out, overwrite)
    _check_model(model)
    config: ModelConfig | None = getattr(model, "model_config", None)
    if preprocessing is None and config is not None:
        preprocessing = preprocessing_for(config, model)
    if dtype == "int8":
        calibration = calibration or _default_calibration(preprocessing)
        inputs = evaluation_inputs(calibration.held_out) if inputs is None else inputs
    inputs = _checked_inputs(inputs, preprocessing)
    title = name or (config.title if config else type(model).__name__)
    with temporary_directory_beside(out) as folder:
        deploy = _deploy_form(model, fuse_model, inputs, tell)
        certificate = _prove(model, deploy, inputs, limits, title, tell)
        golden = _golden(model, inputs)
        one_delegate = fuse_model and config is not None and config.name.startswith("finet_")
        program = trace_program(deploy, next(iter(inputs.values())))
        quantized = _quantized(program, dtype, calibration, limits, tell)
        exported = _export_all(deploy, program, quantized, inputs, formats, one_delegate, tell)
        entries = write_artifacts(folder, exported)
        certificate = _judge(certificate, folder, entries, golden, limits, tell)
        tell("write the bundle")
        contents = Contents(
            name=title,
            config=config,
            source=source if source is not None else getattr(model, "weights_origin", {"kind": "unknown"}),
            fused=fuse_model,
            preprocessing=preprocessing,
            normalization_ops=count_normalization_ops(program_op_counts(program)),
            quantization=None if quantized is None else quantization_entry(quantized),
        )
        manifest = write_bundle(folder, contents, model, deploy, entries, golden, certificate)
        read_bundle(folder)
        _check_target(out, overwrite)  # minutes have passed
        replace_directory(folder, out)
    return Bundle(out, manifest)


def _checked_formats(formats: Sequence[str], dtype: str) -> tuple[str, ...]:
    if dtype not in PRECISIONS:
        raise UsageError(f"unknown precision {dtype!r}", do=f"use {', '.join(PRECISIONS)}")
    if isinstance(formats, str) or not formats:
        raise UsageError(f"formats={formats!r} names no format", do=f"give some of {', '.join(FORMATS)}")
    for fmt in formats:
        if fmt not in PRECISIONS[dtype]:
            raise UsageError(
                f"no {dtype} file in format {fmt!r}", do=f"give some of {', '.join(PRECISIONS[dtype])}"
            )
        require_runtime(runtime_of(fmt))  # every file is run before the bundle gets its name
    return tuple(dict.fromkeys(formats))


def _check_target(out: Path, overwrite: bool) -> None:
    """An existing target is replaced only on request, and only when all of it is a bundle of ours."""
    if not out.exists() and not out.is_symlink():
        return
    if not overwrite:
        raise UsageError("output exists", where=str(out), do="choose another, or allow --overwrite")
    if out.is_symlink() or not out.is_dir():
        raise UsageError("output exists and is not a folder", where=str(out), do="choose another output")
    present = {item.name for item in out.iterdir()}
    if not present:
        return
    try:
        manifest = decode_manifest(read_bounded(out / MANIFEST_FILE, 1 << 22), str(out))
    except FinetDeployError as error:
        raise UsageError(
            "output exists and is not a bundle: it is never overwritten",
            where=str(out),
            do="choose another output, or remove it yourself",
        ) from error
    if foreign := sorted(present - bundle_files(manifest)):
        raise UsageError(
            f"the bundle's folder also holds {foreign[0]}, which overwriting would delete",
            where=str(out),
            do="move it away, or choose another output",
        )


def _check_model(model: nn.Module) -> None:
    check_fusible(model)
    for path, tensor in model.state_dict(keep_vars=True).items():
        if tensor.device.type != "cpu" or (tensor.is_floating_point() and tensor.dtype != torch.float32):
            raise UsageError(
                f"weights are {tensor.dtype} on {tensor.device}, exported files are fp32 from the CPU",
                where=path,
                do="call model.float().cpu()",
            )


def _checked_inputs(
    inputs: Mapping[str, Tensor] | None, preprocessing: Preprocessing | None
) -> Mapping[str, Tensor]:
    if inputs is None:
        if preprocessing is None:
            raise UsageError("nothing says what this network's input is", do="give inputs or preprocessing")
        inputs = evaluation_inputs(default_images(GOLDEN_PHOTOS, preprocessing))
    check_inputs(inputs)
    shape = next(iter(inputs.values())).shape
    for name, x in inputs.items():
        if x.shape != shape or x.ndim != 4 or len(x) != 1 or x.dtype != torch.float32:
            raise UsageError(
                f"input {name!r} is {x.dtype} {tuple(x.shape)}", do="give fp32 (1, 3, H, W), all of one shape"
            )
    return {name: x.detach().cpu().contiguous() for name, x in inputs.items()}


def _deploy_form(model: nn.Module, fuse_model: bool, inputs: Mapping[str, Tensor], tell: Tell) -> nn.Module:
    tell("fuse" if fuse_model else "copy without fusing")
    if fuse_model:
        return fuse(model, example_inputs=(next(iter(inputs.values())),))
    deploy = copy.deepcopy(model)
    left = count_normalization(deploy)
    kept = tuple(Kept(path=path, kind=kind, reason="fusing was switched off") for path, kind in left.items())
    deploy.fuse_report = FuseReport(kept=kept, left=len(left))  # type: ignore[assignment]
    return deploy


def _prove(
    model: nn.Module,
    deploy: nn.Module,
    inputs: Mapping[str, Tensor],
    limits: Limits,
    subject: str,
    tell: Tell,
) -> Certificate:
    tell("verify")
    certificate = verify(model, deploy, inputs=inputs, limits=limits, subject=subject)
    if not certificate.passed:
        raise CheckFailed(certificate)
    return certificate


def _golden(model: nn.Module, inputs: Mapping[str, Tensor]) -> Golden:
    """The truth: the unfused network in float64."""
    outputs = run(as_dtype(model, torch.float64), inputs, torch.float64)
    arrays = {name: y.contiguous().numpy() for name, y in outputs.items()}
    return Golden({name: np.asarray(x.numpy()) for name, x in inputs.items()}, arrays)


def _default_calibration(preprocessing: Preprocessing | None) -> Calibration:
    if preprocessing is None:
        raise UsageError("nothing says what this network's input is", do="give calibration images")
    return load_calibration(None, preprocessing)


def _quantized(
    program: ExportedProgram, dtype: str, calibration: Calibration | None, limits: Limits, tell: Tell
) -> Quantized | None:
    if dtype != "int8":
        return None
    assert calibration is not None  # `export` has seen to it
    tell("quantize")
    return quantize_network(program, calibration, min_sqnr_db=limits.int8_sqnr_db)


def _export_all(
    deploy: nn.Module,
    program: ExportedProgram,
    quantized: Quantized | None,
    inputs: Mapping[str, Tensor],
    formats: Sequence[str],
    one_delegate: bool,
    tell: Tell,
) -> dict[str, Exported]:
    """Every format. quantized: the network in int8, where that is what is exported."""
    exported: dict[str, Exported] = {}
    for fmt in formats:
        tell(f"export {fmt}")
        if quantized is not None:
            exported[fmt] = int8_file(fmt, quantized)
        elif fmt == "ptl":
            exported[fmt] = to_ptl(deploy, next(iter(inputs.values())))
        else:
            exported[fmt] = {"pte": to_pte, "onnx": to_onnx}[fmt](program)
    if one_delegate and "pte" in exported:
        require_one_delegate(exported["pte"])
    return exported


def _judge(
    certificate: Certificate,
    folder: Path,
    entries: Mapping[str, ArtifactEntry],
    golden: Golden,
    limits: Limits,
    tell: Tell,
) -> Certificate:
    """The certificate with the written files in it. Raises CheckFailed when one of them does not pass."""
    paths = {fmt: folder / entry.file for fmt, entry in entries.items()}
    dtypes = {fmt: entry.dtype for fmt, entry in entries.items()}
    versions = available_runtimes()
    certificate = msgspec.structs.replace(
        certificate,
        expected=(*certificate.expected, *map(check_name, paths)),
        checks=(*certificate.checks, *judge_files(paths, golden, certificate, limits, tell, dtypes)),
        versions={
            **certificate.versions,
            **{runtime_of(fmt): versions[runtime_of(fmt)] or "" for fmt in paths},
        },
    )
    if not certificate.passed:
        raise CheckFailed(certificate)
    return certificate
