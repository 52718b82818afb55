"""What is done to pixels: plain torch where a line says it, torchvision's where it takes more.

torchvision's import takes about as long as torch's own (it loads torch's compiler), so it waits for an image that has
to be resized or rotated; most processes never see one. Bit for bit the same as torchvision's functions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["INTERPOLATIONS", "center_crop", "resize_shorter", "standardize"]

INTERPOLATIONS = ("nearest", "nearest-exact", "bilinear", "bicubic", "box", "hamming", "lanczos")


def resize_shorter(image: Tensor, size: int, interpolation: str) -> Tensor:
    """(C, H, W) -> the same with its shorter side `size` px, antialiased; an image of that size as it is.

    ValueError for a name that is not in INTERPOLATIONS.
    """
    if interpolation not in INTERPOLATIONS:
        raise ValueError(f"{interpolation!r} is no interpolation: {', '.join(INTERPOLATIONS)}")
    if min(image.shape[1:]) == size:
        return image
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    return F.resize(image, [size], interpolation=InterpolationMode(interpolation), antialias=True)


def center_crop(image: Tensor, size: int) -> Tensor:
    """(C, H, W) -> (C, size, size) from the middle; with black around it where the image is smaller."""
    if tuple(image.shape[1:]) == (size, size):
        return image
    from torchvision.transforms.v2 import functional as F

    return F.center_crop(image, [size, size])


def standardize(image: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(..., C, H, W) uint8 -> fp32: scaled to [0, 1], then (x - mean) / std by channel."""
    if not all(std):
        raise ValueError(f"a standard deviation of zero: {tuple(std)}")
    shift, scale = (
        torch.tensor(tuple(values), dtype=torch.float32, device=image.device).view(-1, 1, 1)
        for values in (mean, std)
    )
    return image.to(torch.float32).mul_(1 / 255).sub_(shift).div_(scale)
