"""The names that data sets go by, and what is known of each without opening it. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from finet_deploy.errors import UsageError, suggest

__all__ = ["DATASETS", "DatasetInfo", "dataset_info"]

PerChannel = tuple[float, float, float]
IMAGENET_MEAN: PerChannel = (0.485, 0.456, 0.406)
IMAGENET_STD: PerChannel = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class DatasetInfo:
    """A kind of data set. num_classes: None where the folder decides. image_size: what networks for it take, in px.

    mean, std: of the training images in [0, 1], per channel; the values to standardize with. in_package: needs no
    folder. downloads: torchvision can fetch it.
    """

    num_classes: int | None
    image_size: int
    mean: PerChannel
    std: PerChannel
    description: str
    in_package: bool = False
    downloads: bool = False


DATASETS = {
    "digits": DatasetInfo(
        10,
        32,
        # Of the 1438 training images as this package makes them (8x8 grey, resized to 32x32).
        (0.3057, 0.3057, 0.3057),
        (0.3241, 0.3241, 0.3241),
        "scikit-learn's handwritten digits: 1438 to train on, 359 held out, 8x8 px shown at 32; in the package",
        in_package=True,
    ),
    # Means and deviations of the published training images.
    "cifar10": DatasetInfo(
        10,
        32,
        (0.4914, 0.4822, 0.4465),
        (0.2470, 0.2435, 0.2616),
        "CIFAR-10, python version: DIR/cifar-10-batches-py",
        downloads=True,
    ),
    "cifar100": DatasetInfo(
        100,
        32,
        (0.5071, 0.4865, 0.4409),
        (0.2673, 0.2564, 0.2762),
        "CIFAR-100, python version: DIR/cifar-100-python",
        downloads=True,
    ),
    "imagenet": DatasetInfo(
        1000,
        224,
        IMAGENET_MEAN,
        IMAGENET_STD,
        "ImageNet as image folders: DIR/train/<class>/*, DIR/val/<class>/*, 1000 classes",
    ),
    "folder": DatasetInfo(
        None,
        224,
        IMAGENET_MEAN,
        IMAGENET_STD,
        "any image folders: DIR/train/<class>/*, DIR/val/<class>/*",
    ),
    "shards": DatasetInfo(
        None,
        224,
        IMAGENET_MEAN,
        IMAGENET_STD,
        "WebDataset tar shards with their index: DIR/shards.json, DIR/train-*.tar, DIR/val-*.tar",
    ),
}


def dataset_info(name: str) -> DatasetInfo:
    """What is known of the data set `name`; UsageError, with near names, when there is none."""
    if name not in DATASETS:
        do = suggest(name, DATASETS) or f"there are {', '.join(DATASETS)}"
        raise UsageError(f"unknown data set {name!r}", do=do)
    return DATASETS[name]
