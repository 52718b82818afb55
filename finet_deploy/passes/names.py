"""The passes by name, in the order in which they run, and which run by default for which file. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from finet_deploy.errors import UsageError, suggest

__all__ = ["DEFAULTS", "PASS_NAMES", "default_passes", "parse_passes"]

# name -> what it does, in one line; the order is the order in which they run.
PASS_NAMES = {
    "fold-constants": "computes at export what depends on constants alone",
    "remove-idle": "takes out dropout, copies, reshapes and slices that do nothing",
    "fold-affine": "puts a constant factor or summand after a convolution into its weights",
    "pooling": "writes global average pooling as a mean that keeps its axes",
    "gates-as-convolutions": "writes Squeeze-Excite's linear layers as 1x1 convolutions",
    "hard-sigmoid": "puts the slope of a hard sigmoid into the convolution before it and leaves a clamp",
    "split-to-slices": "writes splits and chunks as slices",
    "channel-shuffle": "puts the order of shuffled channels into the weights that read them",
    "pad-channels": "adds zero channels where they fill the core's tiles and pay",
    "split-pixels": "cuts pointwise convolutions where the core's tiles would compute pixels in vain",
}
_COMMON = tuple(name for name in PASS_NAMES if name not in ("pad-channels", "split-pixels"))
# PyTorch Mobile is a legacy target, kept as the paper's Table 4 measured it.
DEFAULTS: dict[str, tuple[str, ...]] = {"pte": tuple(PASS_NAMES), "onnx": _COMMON, "ptl": ()}


def default_passes(fmt: str) -> tuple[str, ...]:
    """The passes that run for a format when nobody says otherwise."""
    return DEFAULTS.get(fmt, ())


def parse_passes(text: str | Sequence[str]) -> tuple[str, ...] | None:
    """`default` (None), `none` (empty) or names, in the order in which they run. UsageError for an unknown name."""
    words = [text] if isinstance(text, str) else list(text)
    names = [name.strip() for word in words for name in word.split(",") if name.strip()]
    if names == ["default"]:
        return None
    if names == ["none"]:
        return ()
    for name in names:
        if name not in PASS_NAMES:
            hint = suggest(name, PASS_NAMES) or f"use default, none, or some of {', '.join(PASS_NAMES)}"
            raise UsageError(f"unknown pass {name!r}", do=hint)
    if not names:
        raise UsageError("no pass is named", do="use default, none, or names separated by commas")
    return tuple(name for name in PASS_NAMES if name in names)
