"""Augmentation: what it does to pixels, and that its randomness is the global generator's alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as F

from finet_deploy.data import Augmentation
from finet_deploy.data.augment import derived_seed, private_rng
from finet_deploy.errors import UsageError


def image(height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(1, 256, (3, height, width), generator=generator, dtype=torch.uint8)


@given(
    st.integers(4, 30),
    st.integers(4, 30),
    st.sampled_from([{}, {"crop_padding": 2}, {"random_resized_crop": True}, {"rotation": 30.0}]),
    st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_any_image_becomes_uint8_of_the_size_asked_for(height, width, options, flip):
    found = Augmentation(image_size=12, flip=flip, **options)(image(height, width))
    assert (found.dtype, found.shape) == (torch.uint8, (3, 12, 12))


def test_without_options_a_square_image_of_the_right_size_stays_as_it_is():
    assert torch.equal(Augmentation(image_size=9)(image(9, 9)), image(9, 9))


def test_padded_crops_are_all_shifts_of_the_image_by_up_to_the_padding():
    padded = F.pad(image(6, 6), [2, 2, 2, 2])
    shifts = {
        tuple(padded[:, y : y + 6, x : x + 6].flatten().tolist()): (y, x) for y in range(5) for x in range(5)
    }
    torch.manual_seed(0)
    found = [
        shifts[tuple(Augmentation(image_size=6, crop_padding=2)(image(6, 6)).flatten().tolist())]
        for _ in range(400)
    ]
    assert set(found) == set(shifts.values())


def test_half_of_the_images_are_flipped_and_the_others_are_not():
    torch.manual_seed(0)
    one = image(5, 5)
    found = [Augmentation(image_size=5, flip=True)(one) for _ in range(200)]
    flipped = sum(torch.equal(other, one.flip(2)) for other in found)
    assert flipped + sum(torch.equal(other, one) for other in found) == 200
    assert 70 < flipped < 130


def test_rotation_stays_within_its_angle_and_goes_both_ways():
    bar = torch.zeros(3, 33, 33, dtype=torch.uint8)
    bar[:, 16, :] = 255
    torch.manual_seed(0)
    rises = []
    for _ in range(60):
        turned = Augmentation(image_size=33, rotation=20)(bar)[0].float()
        rows = torch.arange(33.0)
        left, right = (float((turned[:, x] * rows).sum() / turned[:, x].sum()) for x in (6, 26))
        rises.append(torch.rad2deg(torch.atan(torch.tensor((left - right) / 20))).item())
    assert max(abs(rise) for rise in rises) < 21
    assert max(rises) > 12 and min(rises) < -12


def test_a_random_resized_crop_takes_the_share_of_the_area_that_it_was_told():
    ramp = torch.arange(64, dtype=torch.uint8).expand(3, 64, 64)
    torch.manual_seed(0)
    options = {"scale": (0.25, 0.25), "ratio": (1.0, 1.0)}
    for _ in range(20):
        found = Augmentation(image_size=64, random_resized_crop=True, **options)(ramp).float()
        assert 29 <= found.max() - found.min() <= 32  # half of the width is a quarter of the area
    assert Augmentation(image_size=64, random_resized_crop=True, **options)(ramp).shape == (3, 64, 64)


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": 0},
        {"crop_padding": -1},
        {"scale": (0.5, 0.1)},
        {"ratio": (0.0, 1.0)},
        {"rotation": 181.0},
        {"interpolation": "magic"},
    ],
)
def test_impossible_options_are_named(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        Augmentation(**{"image_size": 8, **options})


def test_seeds_of_neighbours_are_unrelated_and_the_random_state_is_put_back():
    seeds = {derived_seed(a, b) for a in range(40) for b in range(40)}
    assert len(seeds) == 1600
    assert derived_seed(1, 23) != derived_seed(12, 3)
    before = torch.get_rng_state()
    with private_rng() as generator:
        generator.manual_seed(5)
        inside = torch.rand(4)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(inside, torch.rand(4, generator=torch.Generator().manual_seed(5)))
