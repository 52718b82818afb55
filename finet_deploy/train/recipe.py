"""A recipe: every number of a training run, checked. Nothing here imports torch."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec

from finet_deploy.data.names import dataset_info
from finet_deploy.errors import UsageError
from finet_deploy.names import ModelConfig, resolve_config
from finet_deploy.train.recipe_fields import check_known, check_value, field_specs, setting

if TYPE_CHECKING:
    from finet_deploy.data import Augmentation
    from finet_deploy.images import Preprocessing

__all__ = ["MODEL_FIELDS", "Recipe", "fit_model"]

# What a recipe says of its network beside the name, in the order in which it is fitted to another network.
MODEL_FIELDS = (
    "norm", "num_groups", "channels_per_group", "se", "affine", "cifar",
    "mimic_variant", "weight_mean", "last_bn", "dropout",
)  # fmt: skip

NET, DATA, VIEW = "The network", "The data", "Augmentation"
OPT, SPEED = "Optimization", "Precision, speed, repeatability"
Positive, Share = msgspec.Meta(gt=0), msgspec.Meta(gt=0, le=1)


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A training run without its place and machine. Checked when made: a UsageError names what is wrong."""

    name: Annotated[str, setting("", "What the recipe is called.")]
    description: Annotated[str, setting("", "What it is for.")] = ""
    source: Annotated[str, setting("", "Where its values are from.")] = ""

    model: Annotated[str, setting(NET, "The network's name.")]
    norm: (
        Annotated[Literal["bn", "fbn", "mimic"], setting(NET, "Normalization (the network's own).")] | None
    ) = None
    num_groups: Annotated[int, setting(NET, "Groups of FBN.", ge=1)] | None = None
    channels_per_group: (
        Annotated[int, setting(NET, "Instead of the groups: channels a group.", ge=1)] | None
    ) = None
    se: Annotated[bool, setting(NET, "Squeeze-Excite.")] = False
    affine: Annotated[bool, setting(NET, "Gamma and beta in the normalization.")] = True
    cifar: Annotated[bool, setting(NET, "The 32 px form: stem stride 1, no max-pool.")] = False
    mimic_variant: Annotated[
        Literal["code", "paper"],
        setting(NET, "MimicNorm's initialization and scalars as its code or its paper."),
    ] = "code"
    weight_mean: Annotated[
        Literal["projection", "reparametrization", "off"], setting(NET, "MimicNorm's weight mean.")
    ] = "projection"
    last_bn: Annotated[bool, setting(NET, "MimicNorm's batch norm on the logits.")] = True
    dropout: (
        Annotated[float, setting(NET, "Dropout before the last layer (the network's own).", ge=0, lt=1)]
        | None
    ) = None

    dataset: Annotated[str, setting(DATA, "digits, cifar10, cifar100, imagenet, folder or shards.")]
    num_classes: Annotated[int, setting(DATA, "Size of the head (the data set's).", ge=2)] | None = None
    image_size: Annotated[int, setting(DATA, "Height and width in pixels.", ge=8, le=4096)]
    resize: Annotated[int, setting(DATA, "Validation: shorter side before the central crop.", ge=8, le=8192)]
    interpolation: Annotated[
        Literal["bilinear", "bicubic", "nearest"], setting(DATA, "How images are resized.")
    ] = "bilinear"
    mean: (
        Annotated[tuple[float, float, float], setting(DATA, "Subtracted per channel (the data set's).")]
        | None
    ) = None
    std: (
        Annotated[
            tuple[Annotated[float, Positive], Annotated[float, Positive], Annotated[float, Positive]],
            setting(DATA, "Divided by per channel (the data set's)."),
        ]
        | None
    ) = None

    crop_padding: Annotated[
        int, setting(VIEW, "Pixels of zeros around, then a random crop.", ge=0, le=256)
    ] = 0
    random_resized_crop: Annotated[bool, setting(VIEW, "Crop of random area and aspect, resized.")] = False
    scale: Annotated[
        tuple[Annotated[float, Share], Annotated[float, Share]], setting(VIEW, "Area of that crop: from, to.")
    ] = (0.08, 1.0)
    ratio: Annotated[
        tuple[Annotated[float, Positive], Annotated[float, Positive]],
        setting(VIEW, "Aspect of that crop: from, to."),
    ] = (3 / 4, 4 / 3)
    flip: Annotated[bool, setting(VIEW, "Mirror half of the images.")] = False
    rotation: Annotated[
        float, setting(VIEW, "Rotate by up to this many degrees either way.", ge=0, le=180)
    ] = 0.0

    epochs: Annotated[int, setting(OPT, "Passes over the training split.", ge=1)]
    batch_size: Annotated[int, setting(OPT, "Images a step, over all processes.", ge=1)]
    accumulate: Annotated[
        int, setting(OPT, "Parts that a batch is computed in, one after another.", ge=1)
    ] = 1
    lr: Annotated[float, setting(OPT, "Learning rate at its highest.", gt=0)]
    schedule: Annotated[
        Literal["linear", "step", "cosine", "constant"], setting(OPT, "How the learning rate falls.")
    ] = "constant"
    milestones: Annotated[
        tuple[Annotated[int, msgspec.Meta(ge=1)], ...], setting(OPT, "Epochs at which a step schedule steps.")
    ] = ()
    gamma: Annotated[float, setting(OPT, "Factor of one such step.", gt=0, le=1)] = 0.1
    warmup_epochs: Annotated[float, setting(OPT, "Epochs of linear warm-up.", ge=0)] = 0.0
    warmup_start: Annotated[float, setting(OPT, "Where it starts, as a share of the rate.", ge=0, le=1)] = 0.0
    momentum: Annotated[float, setting(OPT, "Of SGD.", ge=0, lt=1)] = 0.9
    nesterov: Annotated[bool, setting(OPT, "Nesterov's form of momentum.")] = False
    weight_decay: Annotated[float, setting(OPT, "L2 regularization.", ge=0)] = 0.0
    decay_norm_and_bias: Annotated[bool, setting(OPT, "Decay gamma, beta and biases too.")] = True
    label_smoothing: Annotated[float, setting(OPT, "Share given to all classes evenly.", ge=0, lt=1)] = 0.0
    clip_grad_norm: Annotated[float, setting(OPT, "Longest gradient.", gt=0)] | None = None
    ema_decay: (
        Annotated[float, setting(OPT, "Average of the weights, kept for deployment.", gt=0, lt=1)] | None
    ) = None

    seed: Annotated[int, setting(SPEED, "Of weights, order and augmentation.", ge=0, le=2**32 - 1)] = 0
    fbn_impl: Annotated[
        Literal["moments", "grouped"],
        setting(SPEED, "How FBN computes: one convolution, or as the paper writes it."),
    ] = "moments"
    sync_norm: Annotated[bool, setting(SPEED, "Batch statistics over all processes.")] = False
    amp: Annotated[Literal["off", "bf16", "fp16"], setting(SPEED, "Automatic mixed precision.")] = "off"
    qat: Annotated[bool, setting(SPEED, "Fine-tune the fused form with its 8 bits simulated.")] = False
    compile: Annotated[bool, setting(SPEED, "torch.compile.")] = False
    channels_last: Annotated[bool, setting(SPEED, "Memory order of images and weights.")] = False

    def __post_init__(self) -> None:
        for name, spec in field_specs(type(self)).items():
            check_value(spec, getattr(self, name), where=f"recipe {self.name}")
        dataset_info(self.dataset)
        self.model_config(2)
        for sound, what, do in self._rules():
            if not sound:
                raise UsageError(what, where=f"recipe {self.name}", do=do)

    def _rules(self) -> list[tuple[bool, str, str]]:
        """What holds between fields: (whether it does, what was found, what to do)."""
        both = self.num_groups is not None and self.channels_per_group is not None
        return [
            (
                not both,
                f"num_groups = {self.num_groups} and channels_per_group = {self.channels_per_group} exclude "
                "each other",
                "give one",
            ),
            (
                self.batch_size % self.accumulate == 0,
                f"batch_size = {self.batch_size} is not a multiple of accumulate = {self.accumulate}",
                "choose a divisor",
            ),
            (
                list(self.milestones) == sorted(set(self.milestones)),
                f"milestones = {list(self.milestones)} do not rise",
                "give epochs in their order",
            ),
            (
                self.resize >= self.image_size,
                f"resize = {self.resize} is below image_size = {self.image_size}",
                "make it as large, or larger",
            ),
            (
                self.scale[0] <= self.scale[1] and self.ratio[0] <= self.ratio[1],
                f"scale = {list(self.scale)} or ratio = {list(self.ratio)} falls",
                "give the smaller one first",
            ),
            (
                not self.nesterov or self.momentum > 0,
                "nesterov without momentum",
                "give a momentum above 0, or nesterov = false",
            ),
            (
                (self.mean is None) == (self.std is None),
                "mean and std go together",
                "give both, or neither for the data set's own",
            ),
            (
                not (self.qat and (self.compile or self.amp != "off")),
                "qat with torch.compile or automatic mixed precision",
                "leave these out: what is simulated is fp32 with rounding",
            ),
        ]

    @property
    def title(self) -> str:
        """`digits-finet_small-G4-SE-cifar-seed0`: the name of a run folder."""
        model = re.sub(r"[^\w.]+", "-", self.model_config(2).title.replace("=", ""))
        return f"{self.name}-{model}{'-qat' if self.qat else ''}-seed{self.seed}"

    def with_overrides(self, **changes: Any) -> Recipe:
        """A copy with these fields changed; UsageError for an unknown field or a value out of range.

        mean, std and num_classes belong to the data set: with another one and none of their own given, they are its
        own. num_groups and channels_per_group exclude each other: giving one removes the other.
        """
        specs = field_specs(Recipe)
        checked = {name: check_value(check_known(name, specs), value) for name, value in changes.items()}
        if checked.get("dataset", self.dataset) != self.dataset:
            checked = {"mean": None, "std": None, "num_classes": None, **checked}
        for one, other in (
            ("num_groups", "channels_per_group"),
            ("channels_per_group", "num_groups"),
        ):
            if checked.get(one) is not None:
                checked = {other: None, **checked}
        return msgspec.structs.replace(self, **checked)

    def to_json_object(self) -> dict[str, Any]:
        """As JSON has it: lists, no tuples."""
        return msgspec.json.decode(msgspec.json.encode(self))

    @classmethod
    def from_json_object(cls, data: Any, *, where: str | None = None) -> Recipe:
        """Read back what `to_json_object` gave; UsageError on a field that is unknown, missing or out of range."""
        if not isinstance(data, dict):
            raise UsageError(
                "a recipe is a table of fields", where=where, do="see `finet-deploy train --help`"
            )
        specs = field_specs(cls)
        values = {str(key): check_value(check_known(str(key), specs, where=where), value, where=where)
                  for key, value in data.items()}  # fmt: skip
        missing = [
            field.name for field in msgspec.structs.fields(cls) if field.required and field.name not in values
        ]
        if missing:
            raise UsageError(
                f"the recipe lacks {', '.join(missing)}", where=where, do="add it, or give `base`"
            )
        return cls(**values)

    def model_config(self, num_classes: int) -> ModelConfig:
        """The network's checked configuration. num_classes: the data set's; the recipe's own may be more, not fewer."""
        if self.num_classes is not None and self.num_classes < num_classes:
            raise UsageError(
                f"num_classes = {self.num_classes} is below the data set's {num_classes}",
                where=f"recipe {self.name}",
                do="leave it out, or give more",
            )
        options = {name: _option(name, getattr(self, name)) for name in MODEL_FIELDS}
        return resolve_config(self.model, num_classes=self.num_classes or num_classes, **options)

    def augmentation(self) -> Augmentation:
        """What is done to a training image."""
        from finet_deploy.data import Augmentation

        return Augmentation(
            crop_padding=self.crop_padding,
            random_resized_crop=self.random_resized_crop,
            scale=self.scale,
            ratio=self.ratio,
            flip=self.flip,
            rotation=self.rotation,
            image_size=self.image_size,
            interpolation=self.interpolation,
        )

    def preprocessing(self) -> Preprocessing:
        """What is done to a validation image, and the standardization of both; the data set's own where not given."""
        from finet_deploy.images import Preprocessing

        info = dataset_info(self.dataset)
        return Preprocessing(
            resize=self.resize,
            crop=self.image_size,
            mean=self.mean or info.mean,
            std=self.std or info.std,
            interpolation=self.interpolation,
        )


def _option(name: str, value: Any) -> Any:
    """A recipe's value as `resolve_config` takes it: None for what every network has without being told."""
    if name == "weight_mean":
        return None if value != "off" else False
    neutral = {"se": False, "affine": True, "cifar": False, "mimic_variant": "code", "last_bn": True}
    return None if value == neutral.get(name) else value


def fit_model(recipe: Recipe, changes: dict[str, Any]) -> tuple[Recipe, list[str]]:
    """`recipe.with_overrides(**changes)`, with what the recipe says of its network fitted to the changed one.

    An option that the new network does not have, or that a change excludes, goes when it is the recipe's (the texts
    returned say which, and why); UsageError when it is among the changes.
    """
    model = changes.get("model", recipe.model)
    given = {name: _option(name, changes[name]) for name in MODEL_FIELDS if name in changes}
    own = {name: _option(name, getattr(recipe, name)) for name in MODEL_FIELDS if name not in changes}
    dropped, notes = {}, []
    for name in MODEL_FIELDS:  # the norm first: which other options there are depends on it
        if own.get(name) is None:
            continue
        # The norm is tried by itself: a change that does not go with it is the change's fault, not the norm's.
        others = {} if name == "norm" else given
        try:
            resolve_config(model, **{**others, name: own[name]})
            given[name] = own[name]
        except UsageError as error:
            resolve_config(
                model, **others
            )  # the network and the changes alone are sound, or this is the error
            dropped[name] = next(
                field.default for field in msgspec.structs.fields(Recipe) if field.name == name
            )
            notes.append(f"recipe {recipe.name}: {name} = {own[name]} left out: {error.message}")
    return recipe.with_overrides(**dropped, **changes), notes
