"""All that training changes: the network, its optimizer, its average; and the forms in which it computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from finet_deploy.errors import UsageError
from finet_deploy.fuse import fuse
from finet_deploy.nn.fbn import set_impl
from finet_deploy.nn.mimicnorm import project_weight_mean_, reparametrize_weight_mean
from finet_deploy.nn.sync import convert_sync_norm
from finet_deploy.quantize.qat import simulate_int8
from finet_deploy.train.diagnose import restored
from finet_deploy.train.distributed import Process
from finet_deploy.train.ema import build_ema, update_ema
from finet_deploy.train.optimizer import build_optimizer
from finet_deploy.zoo import create_from_config

if TYPE_CHECKING:
    from finet_deploy.names import ModelConfig
    from finet_deploy.train.recipes import Recipe

__all__ = ["Learner", "build_learner", "micro_batch_size", "refuse_single_values"]

AMP_DTYPES = {"off": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass
class Learner:
    """`model` is the network itself, whose state is saved; `forward` is the same behind DDP and torch.compile."""

    recipe: Recipe
    process: Process
    model: nn.Module
    parallel: DistributedDataParallel | None
    forward: Callable[[Tensor], Tensor]
    optimizer: torch.optim.SGD
    scaler: torch.amp.GradScaler | None
    ema: AveragedModel | None

    @property
    def evaluated(self) -> nn.Module:
        """What is validated and delivered: the average where there is one."""
        return self.model if self.ema is None else self.ema.module

    @property
    def dtype(self) -> torch.dtype:
        """Of the weights; images are given in it."""
        return next(self.model.parameters()).dtype

    def autocast(self) -> torch.autocast:
        """The context of a forward pass: the recipe's half precision, or none."""
        dtype = AMP_DTYPES[self.recipe.amp]
        return torch.autocast(self.process.device.type, dtype=dtype, enabled=dtype is not None)

    def to_device(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) and (N,) on the device, in the weights' dtype and the recipe's memory format."""
        layout = torch.channels_last if self.recipe.channels_last else torch.contiguous_format
        device = self.process.device
        images = images.to(device, self.dtype, non_blocking=True, memory_format=layout)
        return images, labels.to(device, non_blocking=True)

    def after_step(self) -> None:
        """What follows a change of the weights: back to weights of mean zero (MimicNorm), then the average."""
        if self.recipe.weight_mean == "projection":
            project_weight_mean_(self.model)
        if self.ema is not None:
            update_ema(self.ema, self.model)


def build_learner(
    recipe: Recipe, config: ModelConfig, process: Process, start: nn.Module | None = None
) -> Learner:
    """The seeded network and everything around it, ready for the first step (or for a state to be loaded into).

    start: a network of the same configuration, whose weights are taken. With the recipe's `qat` its fused form is
    trained, with 8 bits simulated. UsageError when `start` is another network.
    """
    model = create_from_config(config, seed=recipe.seed)
    if start is not None:
        _take_weights(model, start)
    if recipe.qat:
        model = simulate_int8(fuse(model.eval())).requires_grad_(True)
    set_impl(model, recipe.fbn_impl)
    if recipe.weight_mean == "reparametrization":
        reparametrize_weight_mean(model)  # before the optimizer: it replaces the parameters
    elif recipe.weight_mean == "projection":
        project_weight_mean_(model)
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    model = model.to(process.device).to(memory_format=layout).train()
    ema = None if recipe.ema_decay is None else build_ema(model, recipe.ema_decay)
    if (
        recipe.sync_norm and process.world_size > 1
    ):  # after the copy for the average, which is only evaluated and needs no process group
        model = convert_sync_norm(model)
    parallel = None
    if process.world_size > 1:
        devices = [process.device] if process.device.type == "cuda" else None
        parallel = DistributedDataParallel(model, device_ids=devices)
    forward: Callable[[Tensor], Tensor] = parallel or model
    if recipe.compile:
        forward = torch.compile(forward)
    scaler = torch.amp.GradScaler(process.device.type) if recipe.amp == "fp16" else None
    optimizer = build_optimizer(model, recipe)
    return Learner(recipe, process, model, parallel, forward, optimizer, scaler, ema)


def _take_weights(model: nn.Module, start: nn.Module) -> None:
    ours, theirs = model.model_config, start.model_config
    if ours != theirs or hasattr(start, "fuse_report"):
        found = "its fused form" if ours == theirs else theirs.title  # type: ignore[union-attr]
        raise UsageError(
            f"the checkpoint to start from holds {found}, the recipe's network is {ours.title}",  # type: ignore[union-attr]
            do="name the network and options that it was trained with, and its unfused checkpoint",
        )
    model.load_state_dict(start.state_dict())


def micro_batch_size(recipe: Recipe, process: Process) -> int:
    """Images in one forward pass of one process. UsageError when the batch cannot be split evenly."""
    parts = process.world_size * recipe.accumulate
    if recipe.batch_size % parts:
        what = f"{process.world_size} processes x {recipe.accumulate} micro-batches"
        raise UsageError(
            f"batch_size={recipe.batch_size} is not a multiple of {parts} ({what})",
            do=f"use {max(1, recipe.batch_size // parts) * parts}, or another accumulate",
        )
    return recipe.batch_size // parts


def refuse_single_values(learner: Learner, image_size: int) -> None:
    """UsageError when a micro-batch of one image leaves a batch norm one value per channel: no variance.

    What counts is what each norm sees: in a block it has the many positions of one image, after the global
    pooling a single one. So one blank image is tried.
    """
    with restored(learner.model), torch.no_grad():
        try:
            blank = torch.zeros(1, 3, image_size, image_size)
            learner.model(blank.to(learner.process.device, learner.dtype))
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise UsageError(
                "a batch of one image leaves a batch norm one value per channel, which has no variance",
                do="give a larger --batch-size, or less --accumulate or processes",
            ) from error
