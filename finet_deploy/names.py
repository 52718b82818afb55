"""The names that networks go by, and the options that each takes: all that can be checked without torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from finet_deploy.errors import UsageError, suggest

__all__ = [
    "ALIASES",
    "FAMILIES",
    "MIMIC_VARIANTS",
    "NORMS",
    "Alias",
    "Family",
    "ModelConfig",
    "describe",
    "known_names",
    "resolve_config",
]

DEFAULT_NUM_GROUPS = 4
NORMS = ("fbn", "bn", "mimic")
MIMIC_VARIANTS = ("code", "paper")


@dataclass(frozen=True)
class Alias:
    """A short name for one of the paper's peers that says which variant it is."""

    target: str
    description: str
    options: tuple[tuple[str, Any], ...] = ()
    input_size: int = 224


# The paper's Table 2 and 4 by their figures: multiply-adds, parameters.
ALIASES = {
    "shufflenetv2_x1_5": Alias("torchvision:shufflenet_v2_x1_5", "ShuffleNetV2 1.5x: 299 M, 3.5 M (large)"),
    "mobilenetv2_x1_0": Alias("torchvision:mobilenet_v2", "MobileNetV2 1.0x: 300 M, 3.5 M (large)"),
    "mobilenetv3_large": Alias(
        "torchvision:mobilenet_v3_large", "MobileNetV3-Large 1.0x: 219 M, 5.5 M (large)"
    ),
    "mnasnet_a1": Alias("timm:semnasnet_100", "MnasNet-A1 1.0x, with SE: 312 M, 3.9 M (large)"),
    "mnasnet_b1": Alias("torchvision:mnasnet1_0", "MnasNet-B1 1.0x, without SE: 315 M, 4.4 M"),
    "shufflenetv2_x0_5": Alias("torchvision:shufflenet_v2_x0_5", "ShuffleNetV2 0.5x: 41 M, 1.4 M (small)"),
    "mobilenetv2_x0_35_192": Alias(
        "torchvision:mobilenet_v2",
        "MobileNetV2 0.35x at 192 px: 43 M, 1.7 M (small)",
        (("width_mult", 0.35),),
        192,
    ),
    "mobilenetv3_small_x0_75": Alias(
        "timm:mobilenetv3_small_075", "MobileNetV3-Small 0.75x: 44 M, 2.0 M (small)"
    ),
}


@dataclass(frozen=True)
class Family:
    """One of our networks: what it is, and which options it takes beside `num_classes` and `cifar`.

    norms: the normalizations that it can be built with, its default first; one with "fbn" takes the options of FBN.
    """

    description: str
    takes_se: bool = False
    norms: tuple[str, ...] = ("bn", "mimic")
    takes_dropout: bool = False


_MIMIC = "BN or MimicNorm (arXiv 2010.09278)"

FAMILIES = {
    "finet_small": Family(
        "Finet small (Luo et al. 2020): 44 M multiply-adds, 2.4 M parameters", True, NORMS, True
    ),
    "finet_large": Family(
        "Finet large (Luo et al. 2020): 303 M multiply-adds, 4.5 M parameters", True, NORMS, True
    ),
    "resnet18_fbn": Family("ResNet18 with FBN on its convolutions (Table 7)", norms=("fbn",)),
    "resnet50_fbn": Family("ResNet50 with FBN on its convolutions (Table 7)", norms=("fbn",)),
    "resnet18": Family(f"ResNet18 with {_MIMIC}"),
    "resnet50": Family(f"ResNet50 with {_MIMIC}"),
    "vgg11": Family(f"VGG11 with {_MIMIC}", takes_dropout=True),
    "vgg16": Family(f"VGG16 with {_MIMIC}", takes_dropout=True),
    "squeezenet": Family(f"SqueezeNet with simple bypass, with {_MIMIC}"),
    "shufflenetv2": Family(f"ShuffleNetV2 (0.5x; 1x in the 32 px form) with {_MIMIC}"),
}


@dataclass(frozen=True)
class ModelConfig:
    """All that is needed to build a network again. For networks of other libraries, only name and num_classes.

    norm: "fbn", "bn" or "mimic" (see `Family.norms`). With "bn" and "mimic", `num_groups` is only what Finet's stage
    widths are rounded up to: the widths of the FBN network with that G. mimic_variant, weight_mean, last_bn: of
    MimicNorm; the last two off give the ablations of its Table 2. dropout: None is the network's own.
    """

    name: str
    num_groups: int | None = None
    channels_per_group: int | None = None
    se: bool = False
    affine: bool = True
    num_classes: int = 1000
    cifar: bool = False
    norm: str = "fbn"
    mimic_variant: str = "code"
    weight_mean: bool = True
    last_bn: bool = True
    dropout: float | None = None

    @property
    def input_size(self) -> int:
        """Height and width of the input in pixels."""
        if self.cifar:
            return 32
        return ALIASES[self.name].input_size if self.name in ALIASES else 224

    @property
    def title(self) -> str:
        """The name with the options that differ from the plain network: `finet_large G=4 SE`."""
        parts = [self.name]
        if self.num_groups is not None:
            parts.append(f"G={self.num_groups}")
        if self.channels_per_group is not None:
            parts.append(f"C/G={self.channels_per_group}")
        parts += [text for text, on in self._words() if on]
        return " ".join(parts)

    def _words(self) -> list[tuple[str, bool]]:
        family = FAMILIES.get(self.name)
        return [
            (self.norm, family is not None and self.norm != family.norms[0]),
            (self.mimic_variant, self.mimic_variant != "code"),
            ("no-weight-mean", not self.weight_mean),
            ("no-last-bn", not self.last_bn),
            ("SE", self.se),
            ("no-affine", not self.affine),
            (f"dropout={self.dropout}", self.dropout is not None),
            ("cifar", self.cifar),
        ]

    def to_json_object(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json_object(cls, data: dict[str, Any]) -> ModelConfig:
        """Read back what `to_json_object` gave; UsageError on unknown or ill-typed fields."""
        for key, value in data.items():
            if key not in _FIELD_TYPES or not isinstance(value, _FIELD_TYPES[key]):
                raise UsageError(
                    f"model configuration has no such field: {key}={value!r}", do="check the file's origin"
                )
        if "name" not in data:
            raise UsageError("model configuration without a name", do="check the file's origin")
        config = cls(**data)
        _check_norm(config)
        return config


_FIELD_TYPES: dict[str, Any] = {
    **dict.fromkeys(("name", "norm", "mimic_variant"), str),
    **dict.fromkeys(("num_groups", "channels_per_group"), (int, type(None))),
    **dict.fromkeys(("se", "affine", "cifar", "weight_mean", "last_bn"), bool),
    "num_classes": int,
    "dropout": (float, int, type(None)),
}


def known_names() -> list[str]:
    """Our networks and the aliases; library networks are open-ended: `torchvision:<name>`, `timm:<name>`."""
    return [*FAMILIES, *ALIASES]


def resolve_config(
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
) -> ModelConfig:
    """Check a name and its options without building anything (torch is not imported). None: the network's own.

    Raises UsageError for an unknown name (near names suggested), or an option that the network does not have.
    """
    if num_classes < 1:
        raise UsageError(f"num_classes={num_classes} is not positive", do="give 1 or more")
    grouping = {"num_groups": num_groups, "channels_per_group": channels_per_group, "affine": affine}
    if name not in FAMILIES:
        _check_library_name(name)
        mimic = {"mimic_variant": mimic_variant, "weight_mean": weight_mean, "last_bn": last_bn}
        others = {"se": se, "norm": norm, "dropout": dropout, "cifar": cifar or None}
        _refuse_options(name, {**grouping, **others, **mimic})
        return ModelConfig(name, num_classes=num_classes)
    family = FAMILIES[name]
    norm = family.norms[0] if norm is None else norm
    if not family.takes_se:
        _refuse_options(name, {"se": se or None})
    if not family.takes_dropout:
        _refuse_options(name, {"dropout": dropout})
    config = ModelConfig(
        name,
        **_check_grouping(name, norm, grouping),
        se=bool(se),
        num_classes=num_classes,
        cifar=bool(cifar),
        norm=norm,
        mimic_variant="code" if mimic_variant is None else mimic_variant,
        weight_mean=weight_mean is not False,
        last_bn=last_bn is not False,
        dropout=dropout,
    )
    _check_norm(config)
    return config


def _check_grouping(name: str, norm: str, given: dict[str, Any]) -> dict[str, Any]:
    """num_groups, channels_per_group and affine of a family; which of them there are depends on its norm."""
    num_groups, channels_per_group = given["num_groups"], given["channels_per_group"]
    if "fbn" not in FAMILIES[name].norms:
        _refuse_options(name, given)
        return {}
    if norm != "fbn":
        _refuse_options(f"{name} with norm={norm}", {"channels_per_group": channels_per_group})
    if norm == "mimic":
        _refuse_options(f"{name} with norm=mimic", {"affine": given["affine"]})
    if num_groups is not None and channels_per_group is not None:
        raise UsageError(
            f"num_groups={num_groups} and channels_per_group={channels_per_group} exclude each other",
            do="give one",
        )
    if num_groups is None and channels_per_group is None:
        num_groups = DEFAULT_NUM_GROUPS if norm == "fbn" else 1
    for option, value in (("num_groups", num_groups), ("channels_per_group", channels_per_group)):
        if value is not None and value < 1:
            raise UsageError(f"{option}={value} is not positive", do="give 1 or more")
    affine = given["affine"] is not False
    return {"num_groups": num_groups, "channels_per_group": channels_per_group, "affine": affine}


def _check_norm(config: ModelConfig) -> None:
    """Raise UsageError for a norm or option of MimicNorm that is not the network's, or a dropout outside [0, 1)."""
    family = FAMILIES.get(config.name)
    if config.norm not in (NORMS if family is None else family.norms):
        known = ", ".join(NORMS if family is None else family.norms)
        raise UsageError(f"{config.name} has no norm {config.norm!r}", do=f"use one of: {known}")
    if config.mimic_variant not in MIMIC_VARIANTS:
        raise UsageError(f"MimicNorm has no variant {config.mimic_variant!r}", do="use code or paper")
    if config.norm != "mimic":
        plain = {"mimic_variant": "code", "weight_mean": True, "last_bn": True}
        given: dict[str, object] = {
            option: None if getattr(config, option) == value else True for option, value in plain.items()
        }
        _refuse_options(f"{config.name} with norm={config.norm}", given)
    if config.dropout is not None and not 0 <= config.dropout < 1:
        raise UsageError(
            f"dropout={config.dropout} is not a probability below 1", do="give 0 or more, below 1"
        )


def _check_library_name(name: str) -> None:
    if name in ALIASES or (name.startswith(("torchvision:", "timm:")) and not name.endswith(":")):
        return
    hint = suggest(name, known_names()) or "see `finet-deploy models`"
    raise UsageError(f"unknown model {name!r}", do=f"{hint} (others: torchvision:<name>, timm:<name>)")


def _refuse_options(name: str, options: dict[str, object]) -> None:
    given = [option for option, value in options.items() if value is not None]
    if given:
        raise UsageError(
            f"{name} has no option {', '.join(given)}", do="leave it out, or see `finet-deploy models`"
        )


def describe(config: ModelConfig) -> str:
    """One line on what a name stands for."""
    if config.name in FAMILIES:
        return FAMILIES[config.name].description
    if config.name in ALIASES:
        return f"{ALIASES[config.name].description}; {ALIASES[config.name].target}"
    return config.name
