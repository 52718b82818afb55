"""Networks without trained weights, made fit to be measured: for demonstrations, tests and speed tables.

The time of an inference does not depend on the weights' values, but what a certificate measures does. A network
as libraries initialize it has running_mean 0 and running_var 1, so folding would have nothing to fold; and with
gamma 1 and beta 0 a deep ReLU network amplifies every difference by sqrt(1 / (1 - 1/pi)) = 1.21 a layer
("MimicNorm", arXiv 2010.09278, Theorem 2), rounding included, so that the fp32 limits, which are meant for
trained networks, would measure that chaos. So gamma and beta are drawn as well, and the statistics are
measured on images. A MimicNorm network amplifies in the same way, and its biases are zero: they and the learnable
scalars are drawn instead.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from finet_deploy.images import calibrate, natural_noise
from finet_deploy.nn.mimicnorm import LearnableScale, LearnableShift, MimicNorm

BatchNorm = nn.modules.batchnorm._BatchNorm  # the base of BatchNorm1d, 2d and 3d

__all__ = ["calibration_images", "prepare_untrained"]


def prepare_untrained(model: nn.Module, pictures: Tensor, *, seed: int = 0) -> nn.Module:
    """Draw gamma and beta of every batch norm, then measure its statistics on `pictures` and noise, in place.

    gamma ~ U(0.5, 1), beta ~ U(0, 1): mostly active units, which keep differences about as large as they come.
    After global pooling gamma is a tenth of that: there a few pictures spread far less than a data set would,
    and dividing by that spread would amplify rounding as no trained network does. A norm without affine gets
    statistics that do the same. pictures: (N, 3, H, W), standardized. The model is left in eval mode.

    In MimicNorm networks biases ~ U(0, 0.5), scalars ~ U(0.75, 1.25) times their first value and shifts
    ~ U(-0.1, 0.1) are drawn first, so that there is something to fold there too.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = [m for m in model.modules() if isinstance(m, BatchNorm) and m.track_running_stats]
    pooled = _norms_after_pooling(model, pictures[:1])
    for norm in norms:
        gamma = 0.5 + 0.5 * torch.rand(norm.num_features, generator=generator)
        gamma = 0.1 * gamma if norm in pooled else gamma
        beta = torch.rand(norm.num_features, generator=generator)
        norm.weight, norm.bias = (
            nn.Parameter(gamma.to(norm.running_mean)),
            nn.Parameter(beta.to(norm.running_mean)),
        )
    for module in model.modules():
        if isinstance(getattr(module, "mimic", None), MimicNorm):
            _draw_biases_and_scalars(module, generator)
    calibrate(model, calibration_images(pictures, seed=seed))
    for norm in norms:
        if not norm.affine:
            _fold_affine_into_statistics(norm)
    return model


@torch.no_grad()
def _draw_biases_and_scalars(model: nn.Module, generator: torch.Generator) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            module.bias.copy_(0.5 * torch.rand(module.bias.shape, generator=generator))
        elif isinstance(module, LearnableScale):
            module.scale.mul_((0.75 + 0.5 * torch.rand(1, generator=generator)).to(module.scale))
        elif isinstance(module, LearnableShift):
            module.shift.copy_(0.2 * torch.rand(1, generator=generator) - 0.1)


def _norms_after_pooling(model: nn.Module, picture: Tensor) -> set[nn.Module]:
    """The norms whose input has no more than one position per image: (N, C) or (N, C, 1, 1)."""
    pooled: set[nn.Module] = set()

    def look(norm: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        if arguments[0].shape[2:].numel() == 1:
            pooled.add(norm)

    hooks = [m.register_forward_pre_hook(look) for m in model.modules() if isinstance(m, BatchNorm)]
    with torch.no_grad():
        model.eval()(picture)
    for hook in hooks:
        hook.remove()
    return pooled


def _fold_affine_into_statistics(norm: BatchNorm) -> None:
    """The statistics with which a norm without gamma and beta does what it does now with them.

    (u - mean) / s * gamma + beta = (u - mean') / s', with s = sqrt(var + eps), s' = s / gamma,
    mean' = mean - beta s'.
    """
    mean, var = norm.running_mean, norm.running_var
    assert mean is not None and var is not None  # `calibrate` has set them
    scaled = (var + norm.eps) / norm.weight.detach().square()
    mean -= norm.bias.detach() * scaled.sqrt()
    var.copy_(scaled - norm.eps)
    norm.register_parameter("weight", None)
    norm.register_parameter("bias", None)


def calibration_images(pictures: Tensor, *, seed: int = 0) -> Tensor:
    """(N + N/3, 3, H, W): the pictures under random light (contrast, colour cast), and noise among them.

    A handful of crops look alike after global pooling; a norm on pooled features (Squeeze-Excite) would divide
    by their tiny spread. The noise stands for the noise inputs of `evaluation_inputs`. Shuffled, so that every
    batch holds of each.
    """
    N, _, H, W = pictures.shape
    generator = torch.Generator().manual_seed(seed)
    contrast = 0.2 + 1.3 * torch.rand(N, 1, 1, 1, generator=generator)
    cast = torch.randn(N, 3, 1, 1, generator=generator)
    white = torch.randn(N // 6, 3, H, W, generator=generator)
    natural = [natural_noise(H, W, generator) for _ in range(N // 6)]
    images = torch.cat([pictures * contrast + cast, white, *natural])
    return images[torch.randperm(len(images), generator=generator)]
