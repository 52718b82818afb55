"""From a network's name or a checkpoint to a network that is ready to deploy."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finet_deploy.errors import UsageError
from finet_deploy.names import ModelConfig, resolve_config

if TYPE_CHECKING:
    from torch import Tensor, nn

    from finet_deploy.api.listener import Listener
    from finet_deploy.images import Preprocessing

__all__ = ["ModelOptions", "Source", "is_checkpoint", "load_source"]

CHECKPOINT_SUFFIXES = {".safetensors", ".pt", ".pth"}
CALIBRATION_IMAGES = 24


@dataclass(frozen=True)
class ModelOptions:
    """The options of a network; None means not given."""

    model: str | None = None
    num_groups: int | None = None
    channels_per_group: int | None = None
    se: bool | None = None
    affine: bool | None = None
    num_classes: int | None = None
    cifar: bool | None = None
    norm: str | None = None
    mimic_variant: str | None = None
    weight_mean: bool | None = None
    last_bn: bool | None = None
    seed: int = 0
    pretrained: bool = False
    images: Path | None = None

    def config(self, name: str) -> ModelConfig:
        """The checked configuration of the network `name` with these options."""
        return resolve_config(name, **self.of_network())

    def of_network(self) -> dict[str, Any]:
        """The options that `resolve_config` takes, those alone that were given."""
        fields = {field: getattr(self, field) for field in _OF_NETWORK}
        return {field: value for field, value in fields.items() if value is not None}


_OF_NETWORK = (
    *("num_groups", "channels_per_group", "se", "affine", "num_classes", "cifar"),
    *("norm", "mimic_variant", "weight_mean", "last_bn"),
)


@dataclass(frozen=True)
class Source:
    """A network in eval mode with statistics to fold, its preprocessing, and the inputs to compare it on."""

    model: nn.Module
    config: ModelConfig
    preprocessing: Preprocessing
    inputs: dict[str, Tensor]

    @property
    def origin(self) -> dict[str, Any]:
        """Where the weights come from (see `zoo.create_model` and `load_checkpoint`)."""
        return self.model.weights_origin  # type: ignore[return-value]


def is_checkpoint(source: str) -> bool:
    """Whether `source` is a file rather than a network's name."""
    return Path(source).suffix in CHECKPOINT_SUFFIXES or Path(source).is_file()


def load_source(source: str, options: ModelOptions, listener: Listener) -> Source:
    """Create or load the network, calibrate it if it is untrained, and prepare the inputs.

    An untrained network gets batch norm statistics from the images (announced), so that there is something to
    fold. Raises UsageError or FinetDeployError with the next step in it.
    """
    if is_checkpoint(source):
        model = _load(source, options, listener)
    else:
        if options.model is not None:
            raise UsageError(
                f"{source!r} is not a checkpoint, so --model has no meaning", do="leave --model out"
            )
        model = _create(options.config(source), options)
    return _prepare(model, options, listener)


def _load(source: str, options: ModelOptions, listener: Listener) -> nn.Module:
    from finet_deploy.checkpoint import load_checkpoint

    if options.pretrained:
        raise UsageError("--pretrained has no meaning for a checkpoint", do="leave it out")
    if options.model is None and options.of_network():
        raise UsageError("options of a network without its name", where=source, do="give --model NAME too")
    config = None if options.model is None else options.config(options.model)
    model = load_checkpoint(source, config)
    for note in model.weights_origin["notes"]:  # type: ignore[index]
        listener.note(f"{source}: {note}")
    return model


def _create(config: ModelConfig, options: ModelOptions) -> nn.Module:
    from finet_deploy.zoo import create_from_config

    return create_from_config(config, pretrained=options.pretrained, seed=options.seed)


def _prepare(model: nn.Module, options: ModelOptions, listener: Listener) -> Source:
    from finet_deploy import images
    from finet_deploy.untrained import prepare_untrained

    config: ModelConfig = model.model_config  # type: ignore[assignment]
    origin: dict[str, Any] = model.weights_origin  # type: ignore[assignment]
    preprocessing = images.preprocessing_for(config, model)
    if options.images is None:
        pictures = images.default_images(CALIBRATION_IMAGES, preprocessing, seed=options.seed)
    else:
        pictures = images.folder_images(options.images, CALIBRATION_IMAGES, preprocessing)
    if origin["kind"] == "seeded":
        listener.note(
            f"{config.title}: untrained (seed {options.seed}); batch norm statistics from {len(pictures)} images"
        )
        prepare_untrained(model, pictures, seed=options.seed)
        origin["calibration_images"] = len(pictures)
    inputs = images.evaluation_inputs(pictures[: images.GOLDEN_PHOTOS], seed=options.seed)
    return Source(model.eval(), config, preprocessing, inputs)
