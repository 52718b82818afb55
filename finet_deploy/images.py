"""Images in: preprocessing in one place, the default photographs, and the inputs that a certificate is made on.

Shape letters: N images, 3 colours, H and W in pixels; tensors are fp32, standardized, NCHW.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.pixels import INTERPOLATIONS, center_crop, resize_shorter, standardize

if TYPE_CHECKING:
    from finet_deploy.names import ModelConfig

__all__ = [
    "Preprocessing",
    "calibrate",
    "default_images",
    "evaluation_inputs",
    "folder_images",
    "natural_noise",
    "preprocessing_for",
]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
GOLDEN_PHOTOS = 4  # photographs among the inputs of a certificate
IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".webp"}


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side to `resize` px, cut the central `crop` px, scale to [0, 1], standardize per channel."""

    resize: int = 256
    crop: int = 224
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: str = "bilinear"

    def __call__(self, image: Tensor) -> Tensor:
        """(3, H, W) uint8 -> (3, crop, crop) fp32."""
        return self.standardize(
            center_crop(resize_shorter(image, self.resize, self.interpolation), self.crop)
        )

    def standardize(self, image: Tensor) -> Tensor:
        """(..., 3, H, W) uint8 -> fp32 with the mean and deviation of the training set taken out."""
        return standardize(image, self.mean, self.std)

    def to_json_object(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json_object(cls, data: dict[str, Any]) -> Preprocessing:
        """Read back what `to_json_object` gave; UsageError when a field is missing, unknown or ill-typed."""
        try:
            own = cls(
                **{**data, "mean": tuple(map(float, data["mean"])), "std": tuple(map(float, data["std"]))}
            )
            sound = own.resize >= own.crop > 0 and len(own.mean) == len(own.std) == 3 and min(own.std) > 0
            sound = sound and own.interpolation in INTERPOLATIONS
        except (TypeError, ValueError, KeyError) as error:
            raise UsageError(f"unreadable preprocessing: {error}", do="check the file's origin") from error
        if not sound:
            raise UsageError(f"impossible preprocessing: {own}", do="check the file's origin")
        return own


def preprocessing_for(config: ModelConfig, model: nn.Module | None = None) -> Preprocessing:
    """What `model`'s checkpoint says, or a published network's own; else the paper's (256, crop 224) at its size.

    timm networks bring theirs (`pretrained_cfg`); it is used when `model` has pretrained weights.
    """
    crop = config.input_size
    origin = getattr(model, "weights_origin", {})
    if origin.get("preprocessing"):
        return Preprocessing.from_json_object(origin["preprocessing"])
    if origin.get("kind") != "pretrained":
        return Preprocessing(resize=round(crop * 256 / 224), crop=crop)
    if hasattr(model, "pretrained_cfg"):
        from timm.data import resolve_model_data_config

        data = resolve_model_data_config(model)
        crop = data["input_size"][-1]
        resize = int(crop / data["crop_pct"])
        return Preprocessing(resize, crop, tuple(data["mean"]), tuple(data["std"]), data["interpolation"])
    import torchvision

    from finet_deploy.names import ALIASES

    target = ALIASES[config.name].target if config.name in ALIASES else config.name
    own = torchvision.models.get_model_weights(target.partition(":")[2]).DEFAULT.transforms()
    return Preprocessing(
        own.resize_size[0], own.crop_size[0], tuple(own.mean), tuple(own.std), own.interpolation.value
    )


def default_images(count: int, preprocessing: Preprocessing, *, seed: int = 0) -> Tensor:
    """(count, 3, crop, crop): scikit-learn's two photographs, whole first, then seeded crops and flips of them."""
    from sklearn.datasets import load_sample_images

    photos = [torch.from_numpy(np.array(photo)).permute(2, 0, 1) for photo in load_sample_images().images]
    generator = torch.Generator().manual_seed(seed)
    crops = []
    for index in range(count):
        photo = photos[index % len(photos)]  # (3, 427, 640)
        if index < len(photos):
            crops.append(preprocessing(photo))
        else:
            crops.append(_random_crop(photo, preprocessing, generator))
    return torch.stack(crops)


def _random_crop(photo: Tensor, preprocessing: Preprocessing, generator: torch.Generator) -> Tensor:
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as F

    height, width = photo.shape[1:]
    share, left, top, flip = torch.rand(4, generator=generator).tolist()
    side = int((0.25 + 0.75 * share) * min(height, width))
    y, x = int(top * (height - side)), int(left * (width - side))
    mode = InterpolationMode(preprocessing.interpolation)
    size = [preprocessing.crop, preprocessing.crop]
    crop = F.resized_crop(photo, y, x, side, side, size, interpolation=mode, antialias=True)
    return preprocessing.standardize(F.horizontal_flip(crop) if flip < 0.5 else crop)


def folder_images(folder: Path | str, count: int, preprocessing: Preprocessing) -> Tensor:
    """(n, 3, crop, crop) of the first `count` image files below `folder`, in the order of their names.

    Raises FinetDeployError when the folder holds no image, or a file cannot be read as one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UsageError("no such folder of images", where=str(folder), do="check --images")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)[:count]
    if not paths:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise FinetDeployError("the folder holds no image", where=str(folder), do=f"put {kinds} files there")
    return torch.stack([preprocessing(_read_image(path)) for path in paths])


def _read_image(path: Path) -> Tensor:
    from PIL import Image

    try:
        with Image.open(path) as image:
            pixels = np.array(image.convert("RGB"))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise FinetDeployError(
            f"cannot read image: {error}", where=str(path), do="remove or replace the file"
        ) from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def calibrate(model: nn.Module, images: Tensor, *, batch_size: int = 16) -> nn.Module:
    """Set every batch norm's running statistics from `images`, in place; the model is left in eval mode.

    The mean over batches of each batch's statistics (`momentum=None`); dropout and the like stay off. For
    networks without trained statistics, so that fusing has something to fold.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    with torch.no_grad():
        for batch in _batches(images, batch_size):
            model(batch)
    for norm, momentum in zip(norms, momenta):
        norm.momentum = momentum
    return model.eval()


def _batches(images: Tensor, batch_size: int) -> Iterator[Tensor]:
    """Batches of at least two images: one image has no variance after global pooling."""
    if len(images) < 2:
        raise UsageError(f"{len(images)} image is too few for batch statistics", do="give two or more images")
    yield from images.tensor_split(max(1, len(images) // batch_size))


def evaluation_inputs(photos: Tensor, *, seed: int = 0) -> dict[str, Tensor]:
    """Named inputs of shape (1, 3, H, W) on which two forms of a network are compared.

    Noise alone is not enough (it averages out in deep layers), nor are photographs (they never reach the
    extremes): seeded noise, images with a natural 1/f spectrum, the photographs, zeros, large and denormal.
    """
    H, W = photos.shape[2:]
    generator = torch.Generator().manual_seed(seed)
    inputs = {f"noise_{i}": torch.randn(1, 3, H, W, generator=generator) for i in range(2)}
    inputs |= {f"imagelike_{i}": natural_noise(H, W, generator) for i in range(2)}
    inputs |= {f"photo_{i}": photo[None].clone() for i, photo in enumerate(photos)}
    inputs["zeros"] = torch.zeros(1, 3, H, W)
    inputs["large"] = 10 * torch.randn(1, 3, H, W, generator=generator)
    inputs["denormal"] = 1e-39 * torch.randn(1, 3, H, W, generator=generator)
    return inputs


def natural_noise(H: int, W: int, generator: torch.Generator) -> Tensor:
    """(1, 3, H, W) with amplitudes falling as 1/f, as in photographs (Field 1987); mean 0, deviation 1."""
    white = torch.fft.rfft2(torch.randn(3, H, W, generator=generator))
    fy, fx = torch.fft.fftfreq(H)[:, None], torch.fft.rfftfreq(W)[None, :]
    frequency = (fy.square() + fx.square()).sqrt().clamp_min(1 / max(H, W))
    image = torch.fft.irfft2(white / frequency, s=(H, W))
    return ((image - image.mean()) / image.std())[None]
