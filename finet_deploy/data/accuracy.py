"""Top-1 and top-5 with Wilson's 95 % interval, and the evaluation of a network.

The interval: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", JASA 22 (1927).
Unlike the textbook's p +- 1.96 sqrt(p(1-p)/n) it is right near 100 %, and at 100 % it is not of width 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import torch
from torch import Tensor, nn

from finet_deploy.data.dataset import Batch
from finet_deploy.errors import FinetDeployError, UsageError

__all__ = ["Accuracy", "Counts", "Interval", "count_correct", "count_scores", "evaluate_model", "wilson"]

CONFIDENCE = 0.95
TOP = 5


@dataclass(frozen=True)
class Interval:
    """A share as a fraction, and the 95 % interval around it."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2%} ({self.low:.2%} to {self.high:.2%})"

    def to_json_object(self) -> dict[str, float]:
        return {"value": self.value, "low": self.low, "high": self.high}


def wilson(correct: int, images: int) -> Interval:
    """Wilson's 95 % interval of `correct` out of `images`. UsageError unless 0 <= correct <= images, images > 0."""
    if not 0 <= correct <= images or images == 0:
        raise UsageError(f"{correct} of {images} images is not a share", do="evaluate at least one image")
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    share, shrink = correct / images, 1 + z * z / images
    centre = (share + z * z / (2 * images)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / images + z * z / (4 * images * images))
    # Exact at the ends, where rounding would leave 1e-17 or 1 - 1e-16, and never beyond the share itself.
    low = 0.0 if correct == 0 else min(share, centre - half)
    high = 1.0 if correct == images else max(share, centre + half)
    return Interval(share, low, high)


@dataclass(frozen=True)
class Accuracy:
    """top5: None where there are at most five classes, as it would be 100 % always.

    skipped: unreadable images, which are in none of the other numbers. not_finite: images whose scores were NaN or
    infinite; they count as wrong.
    """

    top1: Interval
    top5: Interval | None
    correct: int
    images: int
    skipped: int = 0
    not_finite: int = 0

    def to_json_object(self) -> dict[str, Any]:
        return {
            "top1": self.top1.to_json_object(),
            "top5": None if self.top5 is None else self.top5.to_json_object(),
            "correct": self.correct,
            "images": self.images,
            "skipped": self.skipped,
            "not_finite": self.not_finite,
        }


@dataclass(frozen=True)
class Counts:
    """What accuracies are made of. They add up over batches; `to_tensor` adds up over ranks, too.

    correct5: None while no image was counted, or with at most five classes.
    """

    correct1: int = 0
    correct5: int | None = None
    images: int = 0
    skipped: int = 0
    not_finite: int = 0

    def __add__(self, other: Counts) -> Counts:
        fives = [part.correct5 for part in (self, other) if part.correct5 is not None]
        return Counts(
            self.correct1 + other.correct1,
            sum(fives) if fives else None,
            self.images + other.images,
            self.skipped + other.skipped,
            self.not_finite + other.not_finite,
        )

    def to_tensor(self, device: torch.device | str = "cpu") -> Tensor:
        """(6,) int64, to be summed over ranks by an all-reduce; `from_tensor` reads the sum."""
        five = [0, 0] if self.correct5 is None else [1, self.correct5]
        values = [self.correct1, *five, self.images, self.skipped, self.not_finite]
        return torch.tensor(values, dtype=torch.int64, device=device)

    @classmethod
    def from_tensor(cls, values: Tensor) -> Counts:
        """The counts in one, or in a sum, of `to_tensor`."""
        correct1, has5, correct5, *others = (int(value) for value in values.tolist())
        return cls(correct1, correct5 if has5 else None, *others)

    def accuracy(self) -> Accuracy:
        """Raises FinetDeployError when not one image was counted."""
        if self.images == 0:
            raise FinetDeployError(
                f"no image was evaluated ({self.skipped} were skipped)", do="check the data set"
            )
        top5 = None if self.correct5 is None else wilson(self.correct5, self.images)
        top1 = wilson(self.correct1, self.images)
        return Accuracy(top1, top5, self.correct1, self.images, self.skipped, self.not_finite)


def count_scores(scores: Tensor, labels: Tensor) -> Counts:
    """scores (N, classes), labels (N,) -> how many are right.

    An image is right when its label has the greatest score (the first of equal ones), or is among the five
    greatest; not when its scores are not all finite. Raises FinetDeployError for a label that has no score.
    """
    if scores.ndim != 2 or len(scores) != len(labels):
        raise UsageError(
            f"scores are {tuple(scores.shape)} for {len(labels)} labels", do="give (images, classes)"
        )
    if len(labels) == 0:
        return Counts()
    classes = scores.shape[1]
    if int(labels.min()) < 0 or int(labels.max()) >= classes:
        raise FinetDeployError(
            f"label {int(labels.max())} in the data, but the network tells {classes} classes apart",
            do="evaluate it on the data set that it was trained on",
        )
    finite = scores.isfinite().all(1)
    right1 = (scores.argmax(1) == labels) & finite
    right5 = None
    if classes > TOP:
        near = scores.topk(TOP, dim=1).indices == labels[:, None]
        right5 = int((near.any(1) & finite | right1).sum())  # of equal scores, topk may leave out the first
    return Counts(int(right1.sum()), right5, len(labels), 0, int((~finite).sum()))


def count_correct(model: nn.Module, batches: Iterable[Batch], device: torch.device | str) -> Counts:
    """Run the network, in eval mode, on every batch; each module's mode is put back afterwards.

    model: on `device`; (N, 3, H, W) -> (N, classes). With several ranks, each passes its own batches.
    """
    counts = Counts()
    with _in_eval_mode(model), torch.no_grad():
        for batch in batches:
            counts += Counts(skipped=len(batch.skipped))
            if len(batch.labels):
                scores = model(batch.images.to(device, non_blocking=True))
                counts += count_scores(scores.float(), batch.labels.to(device))
    return counts


def evaluate_model(model: nn.Module, batches: Iterable[Batch], device: torch.device | str) -> Accuracy:
    """`count_correct` as an accuracy. FinetDeployError when there was no image."""
    return count_correct(model, batches, device).accuracy()


@contextmanager
def _in_eval_mode(model: nn.Module) -> Iterator[None]:
    # Module by module: in a network in training mode some may be frozen in eval mode.
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
