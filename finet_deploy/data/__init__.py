"""Data sets: opening them by name, batches that depend on the seed alone, and accuracy with intervals.

`finet_deploy.data.names` is light (no torch); everything else loads on first use, so that `--help` stays fast.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from finet_deploy.data.names import DATASETS, DatasetInfo

if TYPE_CHECKING:
    from finet_deploy.data.accuracy import Accuracy as Accuracy
    from finet_deploy.data.accuracy import Counts as Counts
    from finet_deploy.data.accuracy import Interval as Interval
    from finet_deploy.data.accuracy import count_correct as count_correct
    from finet_deploy.data.accuracy import evaluate_model as evaluate_model
    from finet_deploy.data.augment import Augmentation as Augmentation
    from finet_deploy.data.batches import TrainingBatches as TrainingBatches
    from finet_deploy.data.dataset import Batch as Batch
    from finet_deploy.data.dataset import ImageDataset as ImageDataset
    from finet_deploy.data.opening import evaluation_batches as evaluation_batches
    from finet_deploy.data.opening import open_dataset as open_dataset
    from finet_deploy.data.opening import training_batches as training_batches
    from finet_deploy.data.shard_batches import ShardBatches as ShardBatches
    from finet_deploy.data.shard_files import write_shards as write_shards

_HOME = {
    "Accuracy": "accuracy",
    "Counts": "accuracy",
    "Interval": "accuracy",
    "count_correct": "accuracy",
    "evaluate_model": "accuracy",
    "Augmentation": "augment",
    "TrainingBatches": "batches",
    "Batch": "dataset",
    "ImageDataset": "dataset",
    "evaluation_batches": "opening",
    "open_dataset": "opening",
    "training_batches": "opening",
    "ShardBatches": "shard_batches",
    "write_shards": "shard_files",
}
__all__ = ["DATASETS", "DatasetInfo", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
