"""What a call of `export` asks for, checked and completed before anything is computed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.export.bundle import MANIFEST_FILE, bundle_files
from finet_deploy.export.schema import decode_manifest
from finet_deploy.files import read_bounded
from finet_deploy.fuse import check_fusible
from finet_deploy.images import (
    GOLDEN_PHOTOS,
    Preprocessing,
    default_images,
    evaluation_inputs,
    preprocessing_for,
)
from finet_deploy.passes import default_passes, parse_passes
from finet_deploy.passes.kernels import kernels as check_core
from finet_deploy.passes.standardize import RawPixels, raw_inputs, raw_preprocessing
from finet_deploy.quantize import Calibration, load_calibration
from finet_deploy.runtimes import FORMATS, require_runtime, runtime_of
from finet_deploy.verify.forward import check_inputs

if TYPE_CHECKING:
    from finet_deploy.names import ModelConfig

__all__ = ["PRECISIONS", "Request", "check_target", "request"]

# And the formats that have them. In fp16 ONNX Runtime's CPU provider computes most operators in fp32 between
# conversions (microsoft/onnxruntime issue 25824: four times as slow as fp32 on a Raspberry Pi 5).
PRECISIONS = {"float32": tuple(FORMATS), "float16": ("pte",), "int8": ("pte", "onnx")}


@dataclasses.dataclass(frozen=True)
class Request:
    """network: as the caller gave it. model: what is proved and exported, with raw pixels another than `network`.

    config: what `create_model` left on the network. plan: format -> names of its deploy passes. inputs: name ->
    (1, 3, H, W) fp32, as `model` takes them. calibration: images as `model` takes them, None where nothing is int8.
    """

    network: nn.Module
    model: nn.Module
    config: ModelConfig | None
    plan: dict[str, tuple[str, ...]]
    inputs: Mapping[str, Tensor]
    preprocessing: Preprocessing | None
    calibration: Calibration | None


def request(
    model: nn.Module,
    *,
    formats: Sequence[str],
    fuse_model: bool,
    passes: str | Sequence[str],
    core: str,
    raw_pixels: bool,
    inputs: Mapping[str, Tensor] | None,
    preprocessing: Preprocessing | None,
    dtype: str,
    calibration: Calibration | None,
) -> Request:
    """The arguments of `export`, of the same names, as a request. UsageError for what cannot be asked for."""
    formats = _checked_formats(formats, dtype)
    plan = {fmt: parse_passes(passes, default_passes(fmt, dtype) if fuse_model else ()) for fmt in formats}
    check_core(core)
    _check_model(model)
    config: ModelConfig | None = getattr(model, "model_config", None)
    if preprocessing is None and config is not None:
        preprocessing = preprocessing_for(config, model)
    if dtype != "int8":
        calibration = None
    else:
        calibration = calibration or _default_calibration(preprocessing)
        inputs = evaluation_inputs(calibration.held_out) if inputs is None else inputs
    found = Request(
        model, model, config, plan, _checked_inputs(inputs, preprocessing), preprocessing, calibration
    )
    return _with_raw_pixels(found) if raw_pixels else found


def _checked_formats(formats: Sequence[str], dtype: str) -> tuple[str, ...]:
    if dtype not in PRECISIONS:
        raise UsageError(f"unknown precision {dtype!r}", do=f"use {', '.join(PRECISIONS)}")
    if isinstance(formats, str) or not formats:
        raise UsageError(f"formats={formats!r} names no format", do=f"give some of {', '.join(FORMATS)}")
    for fmt in formats:
        if fmt not in FORMATS:
            raise UsageError(f"unknown format {fmt!r}", do=f"use {', '.join(FORMATS)}")
        if fmt not in PRECISIONS[dtype]:
            raise UsageError(
                f"no {dtype} file in format {fmt!r}", do=f"give some of {', '.join(PRECISIONS[dtype])}"
            )
        require_runtime(runtime_of(fmt))  # every file is run before the bundle gets its name
    return tuple(dict.fromkeys(formats))


def _default_calibration(preprocessing: Preprocessing | None) -> Calibration:
    if preprocessing is None:
        raise UsageError("nothing says what this network's input is", do="give calibration images")
    return load_calibration(None, preprocessing)


def check_target(out: Path, overwrite: bool) -> None:
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


def _with_raw_pixels(asked: Request) -> Request:
    """The same for the network of pixels from 0 to 255."""
    preprocessing, calibration = asked.preprocessing, asked.calibration
    if preprocessing is None:
        raise UsageError("nothing says how this network's input is standardized", do="give preprocessing")
    if calibration is not None:
        raw = raw_inputs({"ranges": calibration.images, "held_out": calibration.held_out}, preprocessing)
        calibration = dataclasses.replace(calibration, images=raw["ranges"], held_out=raw["held_out"])
    return dataclasses.replace(
        asked,
        model=RawPixels(asked.model, preprocessing.mean, preprocessing.std),
        inputs=raw_inputs(asked.inputs, preprocessing),
        preprocessing=raw_preprocessing(preprocessing),
        calibration=calibration,
    )
