"""Untrained networks are made fit for a certificate: something to fold, and no amplified rounding."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from finet_deploy.images import default_images, evaluation_inputs, preprocessing_for
from finet_deploy.untrained import calibration_images, prepare_untrained
from finet_deploy.zoo import create_model


def norms(model):
    return [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]


@pytest.mark.parametrize("affine", [True, False])
def test_every_norm_gets_statistics_to_fold_and_the_same_seed_gives_the_same(affine):
    models = []
    for _ in range(2):
        model = create_model("finet_small", se=True, affine=affine, num_classes=10, cifar=True, seed=0)
        models.append(prepare_untrained(model, default_images(12, preprocessing_for(model.model_config))))
    states = [model.state_dict() for model in models]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    for norm in norms(models[0]):
        assert (norm.running_mean != 0).any()
        assert (norm.running_var != 1).all()
        assert affine == (norm.weight is not None)
        assert not affine or norm.bias.std() > 0


@pytest.mark.parametrize("affine", [True, False])
def test_rounding_is_not_amplified_beyond_the_certificates_limit(affine):
    model = create_model("finet_large", se=True, affine=affine, num_classes=100, cifar=True, seed=0)
    pictures = default_images(24, preprocessing_for(model.model_config))
    prepare_untrained(model, pictures)
    inputs = evaluation_inputs(pictures[:2])
    with torch.no_grad():
        found = {name: model(x).double() for name, x in inputs.items()}
        model.double()
        truth = {name: model(x.double()) for name, x in inputs.items()}
    errors = {name: float((found[name] - truth[name]).norm() / truth[name].norm()) for name in inputs}
    assert max(errors.values()) < 1e-5
    assert (truth["photo_0"] - truth["photo_1"]).norm() / truth["photo_0"].norm() > 1e-2


def test_statistics_stand_in_for_gamma_and_beta_exactly():
    pictures = default_images(12, preprocessing_for(create_model("finet_small", cifar=True).model_config))
    outputs = []
    for affine in (True, False):
        model = create_model("finet_small", affine=affine, num_classes=10, cifar=True, seed=0).double()
        prepare_untrained(model, pictures.double())
        with torch.no_grad():
            outputs.append(model(pictures.double()))
    assert (outputs[0] - outputs[1]).norm() / outputs[0].norm() < 1e-12


def test_calibration_images_hold_the_pictures_under_other_light_and_noise():
    one = default_images(1, preprocessing_for(create_model("finet_small", cifar=True).model_config))
    images = calibration_images(one.expand(12, -1, -1, -1))
    assert images.shape == (16, 3, 32, 32)
    assert images.mean((1, 2, 3)).std() > 0.3  # the same picture twelve times, in twelve lights
    correlation = torch.corrcoef(torch.cat([one, images]).mean(1).flatten(1))[0, 1:]
    assert (correlation > 0.5).sum() == 12
