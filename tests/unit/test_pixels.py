"""Pixels: the same bits as torchvision, which is only loaded for an image that has to be resized or rotated."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from finet_deploy.images import Preprocessing
from finet_deploy.pixels import INTERPOLATIONS, center_crop, resize_shorter, standardize


def image(height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator, dtype=torch.uint8)


sizes = st.integers(4, 24)


@given(
    sizes, sizes, st.integers(8, 16), st.integers(4, 16), st.sampled_from(["bilinear", "bicubic", "nearest"])
)
@settings(max_examples=60, deadline=None)
def test_preprocessing_gives_torchvisions_bits(height, width, resize, crop, interpolation):
    picture = image(height, width)
    found = Preprocessing(resize, crop, interpolation=interpolation)(picture)
    resized = F.resize(picture, [resize], interpolation=InterpolationMode(interpolation), antialias=True)
    scaled = F.to_dtype(F.center_crop(resized, [crop, crop]), torch.float32, scale=True)
    assert torch.equal(found, F.normalize(scaled, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))


def test_every_pixel_value_is_standardized_to_torchvisions_bits_and_the_image_is_left_as_it_was():
    picture = torch.arange(256, dtype=torch.uint8).view(1, 16, 16).repeat(3, 1, 1)
    before, mean, std = picture.clone(), (0.1, 0.5, 0.9), (0.3, 0.2, 0.7)
    expected = F.normalize(F.to_dtype(picture, torch.float32, scale=True), list(mean), list(std))
    assert torch.equal(standardize(picture, mean, std), expected)
    assert torch.equal(standardize(picture[None], mean, std)[0], expected)
    assert torch.equal(picture, before)
    with pytest.raises(ValueError, match="deviation of zero"):
        standardize(picture, mean, (0.3, 0.0, 0.7))


def test_an_image_of_the_right_size_is_not_touched_but_the_interpolation_is_checked():
    picture = image(6, 9)
    assert resize_shorter(picture, 6, "bicubic") is picture
    assert center_crop(image(6, 6), 6).shape == (3, 6, 6)
    with pytest.raises(ValueError, match="magic"):
        resize_shorter(picture, 6, "magic")


def test_the_interpolations_are_torchvisions():
    assert tuple(mode.value for mode in InterpolationMode) == INTERPOLATIONS


LIGHT = """
import sys, torch
import finet_deploy.train.loop, finet_deploy.evaluate, finet_deploy.untrained, finet_deploy.reproduce.runner
from finet_deploy.data import Augmentation, evaluation_batches, open_dataset, training_batches
from finet_deploy.images import Preprocessing
data, preprocessing = open_dataset("digits", "val"), Preprocessing(32, 32)
augmentation = Augmentation(image_size=32, crop_padding=1, flip=True)
next(iter(evaluation_batches(data, preprocessing, batch_size=4)))
next(iter(training_batches(data, augmentation, preprocessing, batch_size=4, seed=0).epoch(0)))
found = [name for name in ("torchvision", "torch._dynamo", "torch._inductor") if name in sys.modules]
assert not found, found
"""


def test_images_of_the_right_size_are_read_without_torchvision_and_torchs_compiler():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
