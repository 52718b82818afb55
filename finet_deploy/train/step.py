"""One optimizer step: forward and backward over the micro-batches, checks, clip, step, projection, average."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from finet_deploy.errors import FinetDeployError
from finet_deploy.train.diagnose import NotFinite, first_bad_gradient, first_bad_output, first_bad_tensor
from finet_deploy.train.learner import Learner
from finet_deploy.train.optimizer import set_lr

__all__ = ["StepOutcome", "draw_from", "take_step"]

MIN_SCALE = (
    2.0**-10
)  # a loss scale this small is no longer against overflow: the gradient itself is not finite


@dataclass(frozen=True)
class StepOutcome:
    """Of the whole batch, over all processes. stop: the largest signal number that any process was sent."""

    loss: float
    grad_norm: float
    correct: int
    images: int
    skipped: bool
    stop: int


def draw_from(seed: int, step: int, rank: int) -> None:
    """Let this step's random numbers (dropout) be a function of the seed, the step and the rank alone.

    So a resumed run draws what the uninterrupted one drew, whichever step and however many processes were killed.
    """
    generator = torch.Generator().manual_seed(seed)
    base = int(torch.randint(1 << 40, (), generator=generator))
    torch.manual_seed((base + (step << 12) + rank) % (1 << 63))


def take_step(learner: Learner, images: Tensor, labels: Tensor, lr: float, stop: int = 0) -> StepOutcome:
    """One step on this process's part of a batch: images (N, 3, H, W), labels (N,).

    The gradient is the mean over the whole batch of all processes. Batch statistics are those of a micro-batch
    (and of a process, without sync_norm): with accumulation they are noisier than the whole batch's.
    `stop`: this process's pending signal; all processes get to know the same answer with the loss.
    Raises NotFinite, before anything but the running statistics has changed, when the loss or (without loss
    scaling) the gradient is not finite.
    """
    optimizer, scaler, model = learner.optimizer, learner.scaler, learner.model
    images, labels = learner.to_device(images, labels)
    random_state = torch.get_rng_state()
    optimizer.zero_grad(set_to_none=True)
    loss, correct = _accumulate_gradients(learner, images, labels)
    if scaler is not None:
        scaler.unscale_(optimizer)
    parameters = [parameter for parameter in model.parameters() if parameter.grad is not None]
    norm = get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
    outcome = _agree(learner, loss, correct, norm, len(images), stop)
    if not math.isfinite(outcome.loss):
        torch.set_rng_state(random_state)
        raise NotFinite(f"the loss is {outcome.loss}", _find_culprit(learner, images))
    if not outcome.skipped and not math.isfinite(outcome.grad_norm):
        name = first_bad_gradient(model) or "every gradient alone is finite, their norm is not"
        raise NotFinite("the gradient is not finite", f"first in {name}")
    if learner.recipe.clip_grad_norm is not None and not outcome.skipped:
        clip_grads_with_norm_(parameters, learner.recipe.clip_grad_norm, norm)
    set_lr(optimizer, lr)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)  # leaves the step out by itself when a gradient overflowed
        scaler.update()
        if outcome.skipped and scaler.get_scale() < MIN_SCALE:
            raise NotFinite(
                "no loss scale keeps the gradient finite", f"first in {first_bad_gradient(model)}"
            )
    if not outcome.skipped:
        learner.after_step()
    return outcome


def _accumulate_gradients(learner: Learner, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the gradients of `accumulate` equal micro-batches; the batch's mean loss and its right answers."""
    count, parallel = learner.recipe.accumulate, learner.parallel
    loss_sum = torch.zeros((), dtype=torch.float64, device=images.device)
    correct = torch.zeros((), dtype=torch.float64, device=images.device)
    for index, (x, y) in enumerate(zip(images.chunk(count), labels.chunk(count))):
        last = index == count - 1
        # Only the last backward pass averages over the processes: once a step is enough.
        quiet = contextlib.nullcontext() if parallel is None or last else parallel.no_sync()
        with quiet:
            with learner.autocast():
                scores = _forward(learner, x)
            loss = F.cross_entropy(
                scores.to(learner.dtype), y, label_smoothing=learner.recipe.label_smoothing
            )
            share = loss / count
            (share if learner.scaler is None else learner.scaler.scale(share)).backward()
        loss_sum += loss.detach()
        correct += (scores.detach().argmax(1) == y).sum()
    return loss_sum / count, correct


def _forward(learner: Learner, x: Tensor) -> Tensor:
    if not learner.recipe.compile:
        return learner.forward(x)
    from torch._dynamo.exc import TorchDynamoException

    try:
        return learner.forward(x)
    except TorchDynamoException as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise FinetDeployError(f"torch.compile failed: {reason}", do="train with --no-compile") from error


def _agree(
    learner: Learner, loss: Tensor, correct: Tensor, norm: Tensor, images: int, stop: int
) -> StepOutcome:
    """The same figures on every process, with one reduction and one wait for the device a step."""
    process = learner.process
    own = torch.stack([loss, correct, torch.zeros_like(loss)])
    own[2] = float(stop)
    world = process.world_size
    if world > 1:
        stops = own[2].new_zeros(world)
        stops[process.rank] = own[2]  # summed, each process's signal keeps its own place
        own = process.sum(torch.cat([own[:2], stops]))
        own = torch.cat([own[:1] / world, own[1:2], own[2:].max().reshape(1)])
    mean, right, agreed, grad_norm = torch.cat([own, norm.double().reshape(1)]).tolist()
    skipped = learner.scaler is not None and not math.isfinite(grad_norm)
    right = int(right) if math.isfinite(right) else 0
    return StepOutcome(mean, grad_norm, right, images * world, skipped, int(agreed))


def _find_culprit(learner: Learner, images: Tensor) -> str:
    """Which layer the NaN comes from, on this process's part of the batch."""
    # Parameters only: the running statistics behind a NaN have just become NaN themselves.
    bad_weight = first_bad_tensor(learner.model.named_parameters())
    if not bool(images.isfinite().all()):
        return "the images themselves are not finite"

    def run() -> None:
        for x in images.chunk(learner.recipe.accumulate):
            with learner.autocast():
                learner.model(x)

    # A synchronized norm would wait for the other processes, which are not asked: their own error is enough.
    layer = None if learner.recipe.sync_norm and learner.parallel else first_bad_output(learner.model, run)
    parts = [
        f"first in the output of layer {layer}" if layer else "",
        f"{bad_weight} is not finite" if bad_weight else "",
    ]
    alone = learner.parallel is None
    nowhere = "every layer's output is finite" if alone else f"not in the part of rank {learner.process.rank}"
    return ", ".join(filter(None, parts)) or nowhere
