"""Images: one preprocessing, real photographs, statistics that give fusion something to fold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.images import (
    Preprocessing,
    calibrate,
    default_images,
    evaluation_inputs,
    folder_images,
    preprocessing_for,
)
from finet_deploy.names import resolve_config
from finet_deploy.nn import FBNConv2d

SMALL = Preprocessing(resize=36, crop=32)


def test_preprocessing_is_resize_crop_and_standardize():
    image = torch.full((3, 100, 200), 128, dtype=torch.uint8)
    out = Preprocessing()(image)
    expected = (128 / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    assert out.shape == (3, 224, 224)
    torch.testing.assert_close(out.mean((1, 2)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "resize", "crop"),
    [("finet_large", 256, 224), ("mobilenetv2_x0_35_192", 219, 192), ("resnet18_fbn", 256, 224)],
)
def test_input_size_follows_the_network(name, resize, crop):
    found = preprocessing_for(resolve_config(name))
    assert (found.resize, found.crop) == (resize, crop)
    assert preprocessing_for(resolve_config("finet_small", cifar=True)).crop == 32


def test_preprocessing_survives_json_and_foreign_values_are_refused():
    own = Preprocessing(64, 48, (0.1, 0.2, 0.3), (1.0, 2.0, 3.0), "bicubic")
    assert Preprocessing.from_json_object(own.to_json_object()) == own
    for change in (
        {"std": [0, 1, 1]},
        {"interpolation": "magic"},
        {"crop": 65},
        {"mean": "abc"},
        {"extra": 1},
    ):
        with pytest.raises(UsageError, match="preprocessing"):
            Preprocessing.from_json_object({**own.to_json_object(), **change})


def test_default_images_are_seeded_real_photographs_that_differ():
    first, again, other = (default_images(6, SMALL, seed=seed) for seed in (0, 0, 1))
    assert first.shape == (6, 3, 32, 32)
    assert torch.equal(first, again)
    assert torch.equal(first[:2], other[:2])  # the whole photographs come first, whatever the seed
    assert not torch.equal(first[2:], other[2:])
    distances = torch.cdist(first.flatten(1), first.flatten(1)) + torch.eye(6) * 1e9
    assert distances.min() > 1


def test_a_folder_of_images_is_read_in_the_order_of_its_names(tmp_path):
    for index, name in enumerate(["b.png", "a.jpg", "sub/c.png", "notes.txt"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        if name.endswith("txt"):
            (tmp_path / name).write_text("not an image")
        else:
            Image.fromarray(np.full((50, 60, 3), 40 * index, np.uint8)).save(tmp_path / name)
    images = folder_images(tmp_path, 10, SMALL)
    assert images.shape == (3, 3, 32, 32)
    assert images[0].mean() > images[1].mean()  # a.jpg is the brighter one
    assert len(folder_images(tmp_path, 2, SMALL)) == 2


def test_unusable_image_folders_say_what_is_wrong(tmp_path):
    with pytest.raises(UsageError, match="no such folder"):
        folder_images(tmp_path / "absent", 4, SMALL)
    with pytest.raises(FinetDeployError, match="holds no image"):
        folder_images(tmp_path, 4, SMALL)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnot really")
    with pytest.raises(FinetDeployError, match=r"cannot read image.*broken\.png"):
        folder_images(tmp_path, 4, SMALL)


def test_calibration_gives_the_statistics_of_the_images_and_leaves_eval_mode():
    torch.manual_seed(0)
    model = nn.Sequential(
        FBNConv2d(3, 4, 1, num_groups=3), nn.ReLU(), nn.Dropout(0.5), nn.Conv2d(4, 2, 1), nn.BatchNorm2d(2)
    )
    images = default_images(8, SMALL)
    before = model[0].bn.momentum
    calibrate(model, images, batch_size=8)
    u = model[0].conv(images)
    torch.testing.assert_close(model[0].bn.running_mean, u.mean((0, 2, 3)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(model[0].bn.running_var, u.var((0, 2, 3)), rtol=1e-4, atol=1e-4)
    assert not any(module.training for module in model.modules())
    assert model[0].bn.momentum == before
    with pytest.raises(UsageError, match="two or more"):
        calibrate(model, images[:1])


def test_evaluation_inputs_cover_noise_images_and_extremes():
    inputs = evaluation_inputs(default_images(2, SMALL), seed=0)
    assert list(inputs) == [
        "noise_0", "noise_1", "imagelike_0", "imagelike_1", "photo_0", "photo_1", "zeros", "large", "denormal",
    ]  # fmt: skip
    assert all(
        x.shape == (1, 3, 32, 32) and x.dtype == torch.float32 and x.isfinite().all() for x in inputs.values()
    )
    assert 0 < inputs["denormal"].abs().max() < torch.finfo(torch.float32).tiny
    assert inputs["large"].abs().max() > 30
    smooth, rough = inputs["imagelike_0"], inputs["noise_0"]
    roughness = [(x[..., 1:] - x[..., :-1]).std() / x.std() for x in (smooth, rough)]
    assert roughness[0] < 0.7 * roughness[1]
