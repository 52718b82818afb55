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
from torch import Tensor, nn
from torch.export import ExportedProgram

from finet_deploy.export.bundle import Bundle, Golden, read_bundle
from finet_deploy.export.executorch import require_one_delegate, to_pte
from finet_deploy.export.executorch_fp16 import to_fp16_pte
from finet_deploy.export.exported import Exported, program_op_counts, trace_program
from finet_deploy.export.int8 import int8_file, quantization_entry
from finet_deploy.export.judge import CheckFailed, check_name, judge_files
from finet_deploy.export.onnx import to_onnx
from finet_deploy.export.operators import count_normalization_ops
from finet_deploy.export.request import check_target, request
from finet_deploy.export.schema import ArtifactEntry
from finet_deploy.export.torch_mobile import to_ptl
from finet_deploy.export.writer import Contents, write_artifacts, write_bundle
from finet_deploy.files import replace_directory, temporary_directory_beside
from finet_deploy.fuse import FuseReport, Kept, count_normalization, fuse
from finet_deploy.passes import DEFAULT_CORE, Applied, apply_plans
from finet_deploy.quantize import Calibration, Quantized, quantize_network
from finet_deploy.runtimes import FORMATS, available_runtimes, runtime_of
from finet_deploy.verify import Certificate, Limits
from finet_deploy.verify.certify import prove

if TYPE_CHECKING:
    from finet_deploy.images import Preprocessing

__all__ = ["export"]

Tell = Callable[[str], None]


def export(
    model: nn.Module,
    out: Path | str,
    *,
    formats: Sequence[str] = tuple(FORMATS),
    fuse_model: bool = True,
    passes: str | Sequence[str] = "default",
    core: str = DEFAULT_CORE,
    raw_pixels: bool = False,
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
    """Fuse, prove, rewrite, export, read back, run and judge a network, and write it as the bundle folder `out`.

    model: in eval mode, fp32, on the CPU; never changed. formats: of `pte`, `onnx`, `ptl`. fuse_model: False exports
    it as it is, for comparisons. passes: `default` (what helps each format and precision; nothing for a network that
    is not fused), `none`, or names, see `parse_passes`. core: the core type for whose kernels they choose shapes.
    raw_pixels: the files take pixels from 0 to 255 instead of standardized ones, and the manifest says so. inputs:
    name -> (1, 3, H, W) fp32, standardized; by default made from `preprocessing` and the default photographs.
    preprocessing, name, source: what the manifest says; by default what `create_model` and `load_checkpoint` left on
    the network. dtype: `float32`, or a precision of `PRECISIONS`: `float16`, or `int8`, calibrated on `calibration`
    (standardized images; by default the package's photographs), whose held-out images are then the certificate's
    photographs. limits: of the certificate. progress: told each step as it begins, at most `2 * len(formats) + 4` in
    all, one more for int8.

    Raises UsageError for a wrong call (train mode, an unknown format, an existing folder without `overwrite`),
    CheckFailed when a certificate does not pass, FinetDeployError for everything else. In each case nothing is
    written and an existing bundle stays.
    """
    out, tell, limits = Path(out), progress or (lambda _step: None), limits or Limits()
    check_target(out, overwrite)
    asked = request(
        model,
        formats=formats,
        fuse_model=fuse_model,
        passes=passes,
        core=core,
        raw_pixels=raw_pixels,
        inputs=inputs,
        preprocessing=preprocessing,
        dtype=dtype,
        calibration=calibration,
    )
    config, x = asked.config, next(iter(asked.inputs.values()))
    title = name or (config.title if config else type(model).__name__)
    with temporary_directory_beside(out) as folder:
        deploy = _deploy_form(asked.model, fuse_model, asked.inputs, tell)
        certificate, golden = _prove(asked.model, deploy, asked.inputs, limits, title, tell)
        rewritten = _rewrite(deploy, asked.inputs, asked.plan, core, limits, tell)
        certificate = _with_passes(certificate, rewritten)
        programs = _trace(deploy, rewritten, x)
        quantized = _quantized(programs, rewritten, asked.calibration, limits, tell)
        exported = _export_all(rewritten, programs, dtype, quantized, x, tell)
        if fuse_model and config is not None and config.name.startswith("finet_") and "pte" in exported:
            require_one_delegate(exported["pte"])
        entries = write_artifacts(folder, exported, rewritten, core)
        certificate = _judge(certificate, folder, entries, golden, limits, tell)
        tell("write the bundle")
        contents = Contents(
            name=title,
            config=config,
            source=source if source is not None else getattr(model, "weights_origin", {"kind": "unknown"}),
            fused=fuse_model,
            preprocessing=asked.preprocessing,
            normalization_ops=count_normalization_ops(program_op_counts(programs[id(deploy)])),
            quantization=None if quantized is None else quantization_entry(quantized),
        )
        maps = {fmt: item.operator_map for fmt, item in exported.items() if item.operator_map is not None}
        manifest = write_bundle(folder, contents, model, deploy, entries, golden, certificate, maps)
        read_bundle(folder)
        check_target(out, overwrite)  # minutes have passed
        replace_directory(folder, out)
    return Bundle(out, manifest)


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
) -> tuple[Certificate, Golden]:
    """The certificate so far, and the golden tensors: their outputs are the truth that it was judged against."""
    tell("verify")
    certificate, truth = prove(model, deploy, inputs=inputs, limits=limits, subject=subject)
    if not certificate.passed:
        raise CheckFailed(certificate)
    arrays = {name: y.contiguous().numpy() for name, y in truth.items()}
    return certificate, Golden({name: np.asarray(x.numpy()) for name, x in inputs.items()}, arrays)


def _rewrite(
    deploy: nn.Module,
    inputs: Mapping[str, Tensor],
    plan: Mapping[str, tuple[str, ...]],
    core: str,
    limits: Limits,
    tell: Tell,
) -> dict[str, Applied]:
    """Format -> the network that its exporter gets. Formats with the same passes share one."""
    given = Applied(deploy, (), ())
    first = {names: fmt for fmt, names in reversed(list(plan.items())) if names}
    if not first:
        return dict.fromkeys(plan, given)
    tell("deploy passes")
    plans = {fmt: names for fmt, names in plan.items() if first.get(names) == fmt}
    done = apply_plans(deploy, inputs, plans, core=core, limits=limits)
    return {fmt: done[first[names]] if names else given for fmt, names in plan.items()}


def _with_passes(certificate: Certificate, rewritten: Mapping[str, Applied]) -> Certificate:
    """The certificate with the passes' own in it. Raises CheckFailed when one of them did not pass."""
    checks = {check.name: check for applied in rewritten.values() for check in applied.checks}
    certificate = msgspec.structs.replace(
        certificate,
        expected=(*certificate.expected, *checks),
        checks=(*certificate.checks, *checks.values()),
    )
    if not certificate.passed:
        raise CheckFailed(certificate)
    return certificate


def _trace(deploy: nn.Module, rewritten: Mapping[str, Applied], x: Tensor) -> dict[int, ExportedProgram]:
    """The graph of the deploy network and of what passes made of it, each distinct one once, by its id."""
    models = [deploy, *(applied.model for fmt, applied in rewritten.items() if fmt != "ptl")]
    return {id(model): trace_program(model, x) for model in dict.fromkeys(models)}


def _quantized(
    programs: Mapping[int, ExportedProgram],
    rewritten: Mapping[str, Applied],
    calibration: Calibration | None,
    limits: Limits,
    tell: Tell,
) -> Quantized | None:
    """The one network that all int8 files come from: below fp32 a format's default passes are every format's."""
    if calibration is None:
        return None
    tell("quantize")
    (program,) = {id(applied.model): programs[id(applied.model)] for applied in rewritten.values()}.values()
    return quantize_network(program, calibration, min_sqnr_db=limits.int8_sqnr_db)


def _export_all(
    rewritten: Mapping[str, Applied],
    programs: Mapping[int, ExportedProgram],
    dtype: str,
    quantized: Quantized | None,
    x: Tensor,
    tell: Tell,
) -> dict[str, Exported]:
    """Every format. quantized: the network in int8, where that is what is exported."""
    exported: dict[str, Exported] = {}
    for fmt, applied in rewritten.items():
        tell(f"export {fmt}")
        if quantized is not None:
            exported[fmt] = int8_file(fmt, quantized)
        elif dtype == "float16":
            exported[fmt] = to_fp16_pte(applied.model, x)
        elif fmt == "ptl":
            exported[fmt] = to_ptl(applied.model, x)
        else:
            exported[fmt] = {"pte": to_pte, "onnx": to_onnx}[fmt](programs[id(applied.model)])
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
