"""Names to networks: Finet, ResNet with FBN, MimicNorm's networks, the paper's peers, any torchvision or timm one.

Nothing here imports torch before a network is created.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from finet_deploy.errors import FinetDeployError, UsageError, suggest
from finet_deploy.names import ALIASES, FAMILIES, ModelConfig, resolve_config

if TYPE_CHECKING:
    from torch import nn

__all__ = ["create_from_config", "create_model", "library_models", "set_origin"]


def create_model(
    name: str,
    *,
    num_groups: int | None = None,
    channels_per_group: int | None = None,
    se: bool | None = None,
    affine: bool | None = None,
    num_classes: int = 1000,
    cifar: bool | None = None,
    norm: str | None = None,
    mimic_variant: str | None = None,
    weight_mean: bool | None = None,
    last_bn: bool | None = None,
    dropout: float | None = None,
    pretrained: bool = False,
    seed: int | None = None,
) -> nn.Module:
    """A network in training mode, with `.model_config` and `.weights_origin` set.

    name: see `finet-deploy models`; torchvision:NAME and timm:NAME too. num_groups: G of FBN (4 if neither it nor
    channels_per_group is given). se: Squeeze-Excite. affine: gamma and beta. num_classes: of the head. cifar: the 32
    px form. norm: "fbn", "bn" or "mimic"; mimic_variant ("code" or "paper"), weight_mean and
    last_bn are MimicNorm's (see `ModelConfig`). dropout: the probability before the last layers. seed: weights are
    drawn from this seed and the global generators stay as they were. pretrained: torchvision's or timm's published
    weights, downloaded on first use.
    Raises UsageError for unknown names and impossible options, FinetDeployError when weights cannot be had.
    """
    config = resolve_config(
        name,
        num_groups=num_groups,
        channels_per_group=channels_per_group,
        se=se,
        affine=affine,
        num_classes=num_classes,
        cifar=cifar,
        norm=norm,
        mimic_variant=mimic_variant,
        weight_mean=weight_mean,
        last_bn=last_bn,
        dropout=dropout,
    )
    return create_from_config(config, pretrained=pretrained, seed=seed)


def create_from_config(
    config: ModelConfig, *, pretrained: bool = False, seed: int | None = None
) -> nn.Module:
    """`create_model` from a stored configuration."""
    with _seeded(seed):
        model = (
            _build_own(config, pretrained) if config.name in FAMILIES else _build_library(config, pretrained)
        )
    origin = {"kind": "pretrained" if pretrained else "seeded", "seed": seed, "trained": pretrained}
    set_origin(model, config, origin)
    return model


def set_origin(model: nn.Module, config: ModelConfig, origin: dict[str, Any]) -> None:
    """Leave on the network what it is and where its weights come from; copies and fused forms inherit both."""
    attributes: Any = model  # nn.Module's annotations know only tensors and modules
    attributes.model_config, attributes.weights_origin = config, origin


@contextlib.contextmanager
def _seeded(seed: int | None) -> Iterator[None]:
    import torch

    if seed is None:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _build_own(config: ModelConfig, pretrained: bool) -> nn.Module:
    from finet_deploy import nn as networks

    if pretrained:
        raise UsageError(
            f"nobody publishes weights of {config.name}", do="train it, or give a checkpoint's path"
        )
    grouping = networks.Grouping(config.num_groups, config.channels_per_group, config.affine, config.norm)
    mimic = None
    if config.norm == "mimic":
        mimic = networks.MimicNorm(config.mimic_variant, config.cifar, config.weight_mean, config.last_bn)
    options: dict[str, Any] = {"num_classes": config.num_classes, "cifar": config.cifar, "mimic": mimic}
    if config.dropout is not None:
        options["dropout"] = config.dropout
    if config.name.startswith("finet_"):
        size = config.name.removeprefix("finet_")
        return networks.Finet(size, grouping=grouping, se=config.se, **options)
    if config.name.startswith("resnet"):
        depth = int(config.name.removeprefix("resnet").removesuffix("_fbn"))
        return networks.ResNet(depth, grouping=grouping, **options)
    if config.name.startswith("vgg"):
        return networks.VGG(int(config.name.removeprefix("vgg")), **options)
    return (networks.SqueezeNet if config.name == "squeezenet" else networks.ShuffleNetV2)(**options)


def _build_library(config: ModelConfig, pretrained: bool) -> nn.Module:
    alias = ALIASES.get(config.name)
    target, options = (alias.target, dict(alias.options)) if alias else (config.name, {})
    if pretrained and options:
        raise UsageError(f"nobody publishes weights of {config.name}", do="leave --pretrained out")
    library, _, name = target.partition(":")
    known = library_models(library)
    if name not in known:
        hint = suggest(name, known) or f"see `finet-deploy models --library {library}`"
        raise UsageError(f"{library} has no classifier {name!r}", do=hint)
    try:
        return _build_with(library, name, config.num_classes, pretrained, options)
    except OSError as error:  # urllib's URLError, huggingface_hub's offline and HTTP errors
        raise FinetDeployError(
            f"cannot get {library}'s pretrained weights of {name}: {error}",
            do="check the network connection, or leave --pretrained out",
        ) from error


def _build_with(
    library: str, name: str, num_classes: int, pretrained: bool, options: dict[str, Any]
) -> nn.Module:
    if library == "timm":
        import timm

        return timm.create_model(name, pretrained=pretrained, num_classes=num_classes, **options)
    import torchvision

    if pretrained and num_classes != 1000:
        raise UsageError(
            f"pretrained weights have 1000 classes, not {num_classes}", do="leave --num-classes out"
        )
    if name in ("googlenet", "inception_v3"):
        options = {"aux_logits": pretrained, "init_weights": not pretrained, **options}
    return torchvision.models.get_model(
        name, weights="DEFAULT" if pretrained else None, num_classes=num_classes, **options
    )


def library_models(library: str) -> list[str]:
    """The classifiers that `torchvision` or `timm` has by name. FinetDeployError when timm is not installed."""
    if library == "torchvision":
        import torchvision

        return torchvision.models.list_models(module=torchvision.models)
    if library != "timm":
        raise UsageError(f"unknown model library {library!r}", do="use torchvision or timm")
    try:
        import timm
    except ImportError as error:
        raise FinetDeployError(
            "this model comes from timm, which is not installed", do="pip install 'finet-deploy[timm]'"
        ) from error
    return timm.list_models()
