"""Several forms of one network on the same images: accuracy of each, and on how many images they agree."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from finet_deploy.data.accuracy import Accuracy, Counts, Interval, count_scores, wilson
from finet_deploy.data.dataset import ImageDataset
from finet_deploy.data.opening import indexed_batches
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.images import Preprocessing

__all__ = ["NO_PREDICTION", "Evaluation", "Row", "Runner", "evaluate_runners"]

# Of an image whose scores are not all finite: the greatest of them means nothing.
NO_PREDICTION = -1


@dataclass(frozen=True)
class Runner:
    """One form of a network. run: (N, 3, H, W) fp32 -> scores (N, classes). runtime: what runs it, with version."""

    name: str
    runtime: str
    run: Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Row:
    """What one form predicted. predictions: (images,) labels, NO_PREDICTION where scores were not finite."""

    name: str
    runtime: str
    accuracy: Accuracy
    predictions: NDArray[np.int64]

    def agreement(self, other: Row) -> Interval:
        """The share of images on which both predict the same class; an image without prediction is no agreement."""
        same = (self.predictions == other.predictions) & (self.predictions != NO_PREDICTION)
        return wilson(int(same.sum()), len(same))


@dataclass(frozen=True)
class Evaluation:
    """rows: at least one; agreement is told with the first. indices: of the images, in the data set.

    labels: (images,). skipped: names of unreadable images, which are in no other figure.
    """

    dataset: str
    fingerprint: str
    classes: int
    indices: NDArray[np.int64]
    labels: NDArray[np.int64]
    skipped: tuple[str, ...]
    rows: tuple[Row, ...]

    @property
    def unanimous(self) -> int:
        """On how many images all rows predict the same class."""
        stacked = np.stack([row.predictions for row in self.rows])
        return int(((stacked == stacked[0]).all(0) & (stacked[0] != NO_PREDICTION)).sum())

    def to_json_object(self) -> dict[str, Any]:
        first = self.rows[0]
        return {
            "dataset": self.dataset,
            "fingerprint": self.fingerprint,
            "classes": self.classes,
            "images": len(self.labels),
            "skipped": list(self.skipped),
            "unanimous": self.unanimous,
            "rows": [
                {
                    "name": row.name,
                    "runtime": row.runtime,
                    **row.accuracy.to_json_object(),
                    "agreement": row.agreement(first).to_json_object(),
                }
                for row in self.rows
            ],
        }

    def predictions_csv(self) -> str:
        """One line an image: its index in the data set, its label, and what each row predicted (-1: nothing)."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["index", "label", *(row.name for row in self.rows)])
        writer.writerows(zip(self.indices, self.labels, *(row.predictions for row in self.rows)))
        return stream.getvalue()

    def summary_lines(self) -> list[str]:
        """For people: a line a row, then the agreement, then what is missing from the figures."""
        first, several = self.rows[0], len(self.rows) > 1
        top5 = first.accuracy.top5 is not None
        cells = [["", "top-1 (95 % interval)", *["top-5 (95 % interval)"] * top5]]
        cells[0] += [f"as {first.name}"] if several else []
        for row in self.rows:
            line = [f"{row.name} ({row.runtime})", str(row.accuracy.top1)]
            line += [str(row.accuracy.top5)] if top5 else []
            line += [f"{row.agreement(first).value:.2%}"] if several and row is not first else []
            cells.append(line)
        widths = [max(len(line[i]) for line in cells if i < len(line)) for i in range(len(cells[0]))]
        lines = [f"{self.dataset}: {len(self.labels)} images, {self.classes} classes"]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in cells
        ]
        if several:
            lines.append(
                f"all {len(self.rows)} predict the same class on {self.unanimous} of {len(self.labels)} images"
            )
        if not top5:
            lines.append(f"no top-5: there are only {self.classes} classes")
        if self.skipped:
            lines.append(
                f"{len(self.skipped)} images could not be read and were left out: {self.skipped[0]}, ..."
            )
        return lines


def evaluate_runners(
    runners: Mapping[str, Runner] | list[Runner],
    dataset: ImageDataset,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    workers: int = 0,
    tell: Callable[[str], None] = lambda _step: None,
) -> Evaluation:
    """Every form on every image. tell: told after each form of each batch.

    Raises FinetDeployError when no image can be read, an image may not be skipped, or a form fails.
    """
    forms = list(runners.values()) if isinstance(runners, Mapping) else runners
    if not forms:
        raise UsageError("nothing to evaluate", do="name at least one form")
    indices: list[int] = []
    labels: list[int] = []
    skipped: list[str] = []
    counts = [Counts()] * len(forms)
    predictions: list[list[int]] = [[] for _ in forms]
    for numbers, batch in indexed_batches(dataset, preprocessing, batch_size=batch_size, workers=workers):
        skipped += batch.skipped
        indices += numbers
        labels += batch.labels.tolist()
        for position, form in enumerate(forms):
            if numbers:
                scores = form.run(batch.images).float()
                counts[position] += count_scores(scores, batch.labels)
                predictions[position] += _predicted(scores)
            tell(f"{form.name}: {len(labels)} of {len(dataset)} images")
    if not labels:
        raise FinetDeployError(
            f"no image of {dataset.name} could be read ({len(skipped)} were skipped)", do="check the data"
        )
    rows = tuple(
        Row(form.name, form.runtime, (count + Counts(skipped=len(skipped))).accuracy(), np.array(predicted))
        for form, count, predicted in zip(forms, counts, predictions)
    )
    return Evaluation(
        dataset.name,
        dataset.fingerprint,
        len(dataset.classes),
        np.array(indices),
        np.array(labels),
        tuple(skipped),
        rows,
    )


def _predicted(scores: Tensor) -> list[int]:
    best = scores.argmax(1).masked_fill(~scores.isfinite().all(1), NO_PREDICTION)
    return best.tolist()
