"""The comparator: how far the outputs of one form of a network are from those of another.

One comparator serves every form: a fused net, an exported file in its own runtime, golden files read back on
another machine, a phone. It needs numpy only: importing it must not import torch, because the processes that
measure load nothing but the runtime under test.

The measure is norm-relative, `||a - b|| / ||b||` over one output tensor (b is the reference), in float64.
A sum of squares or an absolute tolerance has no scale: it passes on a network whose outputs are small, and
fails on one whose outputs are large.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import numpy as np

from finet_deploy.errors import UsageError

__all__ = ["Comparison", "InputComparison", "Problem", "compare", "relative_error"]

Array = np.ndarray[Any, np.dtype[np.float64]]

# A changed top-1 class counts as a tie when the reference itself holds the two classes nearer than this many
# root-mean-square errors. Noise of the measured size moves a difference of two logits by sqrt(2) rms, so 8
# rms is 5.7 standard deviations: noise stays below it, one wrong logit among many does not.
TIE_RMS = 8.0

Top1 = Literal["equal", "tie", "differs"]


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Why one input has no figures: its output is missing, extra, of another shape, empty or not finite."""

    name: str
    found: str


class InputComparison(msgspec.Struct, frozen=True, kw_only=True):
    """One input's output, candidate against reference.

    relative_error: `||a - b|| / ||b||`; `||a - b||` itself where `absolute` is true, because b is all zeros.
    max_abs_error: the largest `|a - b|`, in the output's own unit.
    sqnr_db: `20 log10(||b|| / ||a - b||)`; None where the two are equal, or the reference is zero.
    top1: for outputs (N, classes): is the largest class the same in every row? `tie`: no, but the reference's
        own margin between the two classes is within the noise. None for outputs that are not rows of classes.
    """

    name: str
    relative_error: float
    absolute: bool
    max_abs_error: float
    sqnr_db: float | None
    top1: Top1 | None


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """All inputs. An input that cannot be compared is a `Problem`, and no summary figure hides it."""

    inputs: tuple[InputComparison, ...]
    problems: tuple[Problem, ...] = ()

    @property
    def comparable(self) -> bool:
        """At least one input was compared, and none had to be left out."""
        return bool(self.inputs) and not self.problems

    @property
    def worst_input(self) -> str | None:
        """The input with the largest error; one that could not be compared is worse than any figure."""
        if self.problems:
            return self.problems[0].name
        return max(self.inputs, key=lambda row: row.relative_error).name if self.inputs else None

    @property
    def max_error(self) -> float:
        """The largest relative error; infinite when an input could not be compared, or there is none."""
        return max(row.relative_error for row in self.inputs) if self.comparable else math.inf

    def typical_errors(self) -> dict[str, float]:
        """Input -> its error, or the median over all inputs where that is larger.

        Rounding errors scatter: one input's may be small by luck, and is then no yardstick for another net's.
        """
        errors = [row.relative_error for row in self.inputs]
        middle = statistics.median(errors) if errors else 0.0
        return {row.name: max(row.relative_error, middle) for row in self.inputs}

    @property
    def min_sqnr_db(self) -> float:
        """The smallest SQNR; infinite when every output is equal, minus infinite with a problem."""
        if not self.comparable:
            return -math.inf
        return min((row.sqnr_db for row in self.inputs if row.sqnr_db is not None), default=math.inf)

    @property
    def top1_agreement(self) -> float | None:
        """The share of inputs with the same top-1 class, ties not counted as same; None without classes."""
        judged = [row.top1 for row in self.inputs if row.top1 is not None]
        if not judged:
            return None
        return judged.count("equal") / (len(judged) + len(self.problems))


def compare(reference: Mapping[str, Any], candidate: Mapping[str, Any]) -> Comparison:
    """Compare outputs by input name: torch tensors or numpy arrays of any real dtype, in float64.

    Nothing raises on a bad candidate: missing and extra names, other shapes, NaN and infinities become
    `problems`, with which no check can pass. Raises UsageError for outputs that are not numbers.
    """
    rows: list[InputComparison] = []
    problems = [Problem(name=name, found="extra output") for name in candidate if name not in reference]
    for name, expected in reference.items():
        if name not in candidate:
            problems.append(Problem(name=name, found="no output"))
            continue
        b, a = _as_float64(expected, name), _as_float64(candidate[name], name)
        found = _uncomparable(a, b)
        if found is None:
            row = _compare_one(name, a, b)
            if row is not None:
                rows.append(row)
                continue
            found = "error too large for float64"
        problems.append(Problem(name=name, found=found))
    return Comparison(inputs=tuple(rows), problems=tuple(problems))


def _as_float64(value: Any, name: str) -> Array:
    if hasattr(value, "detach"):  # a torch tensor, told without importing torch; numpy does not know bfloat16
        value = value.detach().cpu().double().numpy()
    array = np.asarray(value)
    if array.dtype.kind in "OSUMmc":
        raise UsageError(
            f"output is {array.dtype}, not real numbers", where=name, do="compare tensors or arrays"
        )
    return array.astype(np.float64)


def _uncomparable(a: Array, b: Array) -> str | None:
    if a.shape != b.shape:
        return f"shape {a.shape} where the reference has {b.shape}"
    if b.size == 0:
        return "empty output"
    for array, whose in ((b, "reference"), (a, "candidate")):
        bad = array.size - int(np.count_nonzero(np.isfinite(array)))
        if bad:
            return f"{bad} of {array.size} values of the {whose} are NaN or infinite"
    return None


def relative_error(a: Array, b: Array) -> tuple[float, bool]:
    """`||a - b|| / ||b||`, or `||a - b||` and True where b is all zeros.

    Both are divided by their largest magnitude first, so that neither huge nor denormal values are lost when
    squared.
    """
    scale = float(max(np.abs(a).max(), np.abs(b).max()))
    if scale == 0.0:
        return 0.0, True
    difference = float(np.linalg.norm((a / scale - b / scale).ravel()))
    norm = float(np.linalg.norm((b / scale).ravel()))
    if not b.any():
        return difference * scale, True
    return (difference / norm if norm > 0.0 else math.inf), False


def _compare_one(name: str, a: Array, b: Array) -> InputComparison | None:
    with np.errstate(over="ignore", under="ignore"):
        error, absolute = relative_error(a, b)
        max_abs_error = float(np.abs(a - b).max())
    if not (math.isfinite(error) and math.isfinite(max_abs_error)):
        return None
    return InputComparison(
        name=name,
        relative_error=error,
        absolute=absolute,
        max_abs_error=max_abs_error,
        sqnr_db=None if absolute or error == 0.0 else -20.0 * math.log10(error),
        top1=_top1(a, b),
    )


def _top1(a: Array, b: Array) -> Top1 | None:
    if b.ndim != 2 or b.shape[1] < 2:
        return None
    verdict: Top1 = "equal"
    for ours, theirs in zip(a, b):
        chosen, expected = int(ours.argmax()), int(theirs.argmax())
        if chosen == expected:
            continue
        with np.errstate(over="ignore"):
            rms = float(np.sqrt(np.mean(np.square(ours - theirs))))
            if not theirs[expected] - theirs[chosen] <= TIE_RMS * rms:
                return "differs"
        verdict = "tie"
    return verdict
