"""The passes by name, in the order in which they run, and which run by default for which file. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from finet_deploy.errors import UsageError, suggest

__all__ = ["DEFAULTS", "LOWER", "PASS_NAMES", "default_passes", "parse_passes"]

# name -> what it does, in one line; the order is the order in which they run.
PASS_NAMES = {
    "fold-constants": "computes at export what depends on constants alone",
    "remove-idle": "takes out dropout, copies, reshapes and slices that do nothing",
    "fold-standardization": "puts the division (and, without padding, the mean) before a convolution into its weights",
    "fold-affine": "puts a constant factor or summand after a convolution into its weights",
    "pooling": "writes global average pooling as a mean that keeps its axes",
    "gates-as-convolutions": "writes Squeeze-Excite's linear layers as 1x1 convolutions",
    "hard-sigmoid": "puts the slope of a hard sigmoid into the convolution before it and leaves a clamp",
    "split-to-slices": "writes splits and chunks as slices",
    "channel-shuffle": "puts the order of shuffled channels into the weights that read them",
    "pad-channels": "adds zero channels where they fill the core's tiles and pay",
    "split-pixels": "cuts pointwise convolutions where the core's tiles would compute pixels in vain",
}
# Counted for ONNX Runtime on ShuffleNetV2 x1.5 (ARM instructions, an emulated A76): `channel-shuffle` takes
# 2.19 M off 136.94 M; `split-to-slices` costs 0.01 M, and is what the shuffle is read through; `pooling` gains less
# than 0.01 M and is off. What folds or removes puts nothing in the place of what it takes out. The others are
# spelled or sized for XNNPACK's delegates and tiles: nobody has counted a gain from them here, so they are off.
_ONNX = (
    "fold-constants",
    "remove-idle",
    "fold-standardization",
    "fold-affine",
    "split-to-slices",
    "channel-shuffle",
)
# PyTorch Mobile is a legacy target, kept as the paper's Table 4 measured it.
DEFAULTS: dict[str, tuple[str, ...]] = {"pte": tuple(PASS_NAMES), "onnx": _ONNX, "ptl": ()}
# Below fp32: what leaves fewer operators to round between. Not the shapes and gates chosen for fp32 kernels, and the
# same for every format, so that one network is calibrated and quantized, and its files are comparable.
LOWER = (
    "fold-constants",
    "remove-idle",
    "fold-standardization",
    "fold-affine",
    "pooling",
    "split-to-slices",
    "channel-shuffle",
)
# In fp16: all but the shapes, which are chosen by what fp32 kernels cost.
FP16 = tuple(name for name in PASS_NAMES if name not in ("pad-channels", "split-pixels"))


def default_passes(fmt: str, dtype: str = "float32") -> tuple[str, ...]:
    """The passes that run for a file of a format and precision when nobody says otherwise."""
    return DEFAULTS.get(fmt, ()) if dtype == "float32" else FP16 if dtype == "float16" else LOWER


def parse_passes(text: str | Sequence[str], default: Sequence[str]) -> tuple[str, ...]:
    """What `--passes` means, in the order in which passes run: `none`, or names, each taken in, or out by a `-`.

    `default` stands for the names of `default`: `default,-split-pixels`. UsageError for an unknown name.
    """
    words = [text] if isinstance(text, str) else list(text)
    names = [name.strip() for word in words for name in word.split(",") if name.strip()]
    if not names:
        raise UsageError("no pass is named", do="use default, none, or names separated by commas")
    if names == ["none"]:
        return ()
    chosen: set[str] = set()
    for name in names:
        bare = name.removeprefix("-")
        if name != "default" and bare not in PASS_NAMES:
            hint = suggest(bare, PASS_NAMES) or f"use default, none, or some of {', '.join(PASS_NAMES)}"
            raise UsageError(f"unknown pass {bare!r}", do=hint)
        if name == "default":
            chosen |= set(default)
        elif name.startswith("-"):
            chosen.discard(bare)
        else:
            chosen.add(name)
    return tuple(name for name in PASS_NAMES if name in chosen)
