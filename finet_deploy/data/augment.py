"""Random changes of a training image. All randomness comes from torch's global CPU generator."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from finet_deploy.errors import UsageError
from finet_deploy.pixels import INTERPOLATIONS, resize_shorter

__all__ = ["Augmentation", "derived_seed", "private_rng"]


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """uint8 (3, H, W) -> uint8 (3, image_size, image_size), by these steps in this order.

    1. random_resized_crop: a crop of `scale` of the area and an aspect ratio in `ratio` (Inception's). Otherwise
       the shorter side is resized to image_size, `crop_padding` black px are put on each side, and a square of
       image_size is cut at random.
    2. flip: left to right, half of the time.
    3. rotation: by up to this many degrees either way, uniformly; black where nothing was.
    """

    image_size: int
    crop_padding: int = 0
    random_resized_crop: bool = False
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: bool = False
    rotation: float = 0.0
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        _require(self.image_size >= 1, f"image_size={self.image_size}", "1 or more")
        _require(self.crop_padding >= 0, f"crop_padding={self.crop_padding}", "0 or more")
        _require(0 < self.scale[0] <= self.scale[1] <= 1, f"scale={self.scale}", "0 < low <= high <= 1")
        _require(0 < self.ratio[0] <= self.ratio[1], f"ratio={self.ratio}", "0 < low <= high")
        _require(0 <= self.rotation <= 180, f"rotation={self.rotation}", "0 to 180 degrees")
        known = ", ".join(INTERPOLATIONS)
        _require(self.interpolation in INTERPOLATIONS, f"interpolation={self.interpolation!r}", known)

    def __call__(self, image: Tensor) -> Tensor:
        image = self._resized_crop(image) if self.random_resized_crop else self._padded_crop(image)
        if self.flip and torch.rand(()).item() < 0.5:
            image = image.flip(-1)
        return self._rotated(image) if self.rotation > 0 else image

    def _rotated(self, image: Tensor) -> Tensor:
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2 import functional as F

        angle = (2 * torch.rand(()).item() - 1) * self.rotation
        return F.rotate(image, angle, interpolation=InterpolationMode.BILINEAR)

    def _resized_crop(self, image: Tensor) -> Tensor:
        from torchvision.transforms import RandomResizedCrop
        from torchvision.transforms.v2 import InterpolationMode
        from torchvision.transforms.v2 import functional as F

        top, left, height, width = RandomResizedCrop.get_params(image, list(self.scale), list(self.ratio))
        size, mode = [self.image_size, self.image_size], InterpolationMode(self.interpolation)
        return F.resized_crop(image, top, left, height, width, size, interpolation=mode, antialias=True)

    def _padded_crop(self, image: Tensor) -> Tensor:
        size, padding = self.image_size, self.crop_padding
        image = resize_shorter(image, size, self.interpolation)
        if padding:
            image = pad(image, [padding] * 4)
        rooms = [side - size + 1 for side in image.shape[1:]]
        if max(rooms) > 1:
            top, left = (math.floor(share * room) for share, room in zip(torch.rand(2).tolist(), rooms))
            image = image[:, top : top + size, left : left + size]
        return image


def _require(sound: bool, found: str, wanted: str) -> None:
    if not sound:
        raise UsageError(f"impossible augmentation: {found}", do=f"give {wanted}")


def derived_seed(*parts: int) -> int:
    """One 63-bit seed from several numbers, such that near numbers give unrelated seeds (BLAKE2)."""
    text = ",".join(map(str, parts)).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


@contextmanager
def private_rng() -> Iterator[torch.Generator]:
    """torch's global CPU generator, to be seeded at will inside: its state is put back at the end.

    `torch.manual_seed` would seed the accelerators too; the generator itself seeds the CPU's alone.
    """
    with torch.random.fork_rng(devices=[]):
        yield torch.default_generator
