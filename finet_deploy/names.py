"""The names that networks go by, and the options that each takes: all that can be checked without torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from finet_deploy.errors import UsageError, suggest

__all__ = [
    "ALIASES",
    "FAMILIES",
    "Alias",
    "Family",
    "ModelConfig",
    "describe",
    "known_names",
    "resolve_config",
]

DEFAULT_NUM_GROUPS = 4


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
    """One of our networks: what it is, and which options it takes beside `num_groups`, `affine`, `cifar`."""

    description: str
    takes_se: bool


FAMILIES = {
    "finet_small": Family("Finet small (Luo et al. 2020): 44 M multiply-adds, 2.4 M parameters", True),
    "finet_large": Family("Finet large (Luo et al. 2020): 303 M multiply-adds, 4.5 M parameters", True),
    "resnet18_fbn": Family("ResNet18 with FBN on its convolutions (Table 7)", False),
    "resnet50_fbn": Family("ResNet50 with FBN on its convolutions (Table 7)", False),
}


@dataclass(frozen=True)
class ModelConfig:
    """All that is needed to build a network again. For networks of other libraries, only name and num_classes."""

    name: str
    num_groups: int | None = None
    channels_per_group: int | None = None
    se: bool = False
    affine: bool = True
    num_classes: int = 1000
    cifar: bool = False

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
        parts += [
            text
            for text, on in (("SE", self.se), ("no-affine", not self.affine), ("cifar", self.cifar))
            if on
        ]
        return " ".join(parts)

    def to_json_object(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json_object(cls, data: dict[str, Any]) -> ModelConfig:
        """Read back what `to_json_object` gave; UsageError on unknown or ill-typed fields."""
        types: dict[str, Any] = {
            "name": str,
            "num_groups": (int, type(None)),
            "channels_per_group": (int, type(None)),
        }
        types |= {"se": bool, "affine": bool, "num_classes": int, "cifar": bool}
        for key, value in data.items():
            if key not in types or not isinstance(value, types[key]):
                raise UsageError(
                    f"model configuration has no such field: {key}={value!r}", do="check the file's origin"
                )
        if "name" not in data:
            raise UsageError("model configuration without a name", do="check the file's origin")
        return cls(**data)


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
) -> ModelConfig:
    """Check a name and its options without building anything (torch is not imported).

    Raises UsageError for an unknown name (near names suggested), or an option that the network does not have.
    """
    if num_classes < 1:
        raise UsageError(f"num_classes={num_classes} is not positive", do="give 1 or more")
    if name not in FAMILIES:
        _check_library_name(name)
        options = {
            "num_groups": num_groups,
            "channels_per_group": channels_per_group,
            "se": se,
            "affine": affine,
        }
        _refuse_options(name, {**options, "cifar": cifar or None})
        return ModelConfig(name, num_classes=num_classes)
    if num_groups is not None and channels_per_group is not None:
        raise UsageError(
            f"num_groups={num_groups} and channels_per_group={channels_per_group} exclude each other",
            do="give one",
        )
    if se and not FAMILIES[name].takes_se:
        _refuse_options(name, {"se": se})
    if num_groups is None and channels_per_group is None:
        num_groups = DEFAULT_NUM_GROUPS
    for option, value in (("num_groups", num_groups), ("channels_per_group", channels_per_group)):
        if value is not None and value < 1:
            raise UsageError(f"{option}={value} is not positive", do="give 1 or more")
    return ModelConfig(
        name,
        num_groups=num_groups,
        channels_per_group=channels_per_group,
        se=bool(se),
        affine=affine is not False,
        num_classes=num_classes,
        cifar=bool(cifar),
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
            f"{name} has no option {', '.join(given)}", do="leave it out, or choose a finet_* network"
        )


def describe(config: ModelConfig) -> str:
    """One line on what a name stands for."""
    if config.name in FAMILIES:
        return FAMILIES[config.name].description
    if config.name in ALIASES:
        return f"{ALIASES[config.name].description}; {ALIASES[config.name].target}"
    return config.name
