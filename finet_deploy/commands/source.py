"""The options of a network on the command line."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from finet_deploy.api.source import ModelOptions, Source, is_checkpoint, load_source
from finet_deploy.names import MIMIC_VARIANTS, NORMS

__all__ = ["ModelOptions", "Source", "is_checkpoint", "load_source", "model_options"]


def model_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of a network, handed to the command as one `options: ModelOptions`."""

    @click.option(
        "--model", metavar="NAME", help="The network of a checkpoint that does not say which it is."
    )
    @click.option("--num-groups", type=click.IntRange(1), metavar="G", help="Groups of FBN (default 4).")
    @click.option(
        "--channels-per-group", type=click.IntRange(1), metavar="N", help="Instead of G: channels a group."
    )
    @click.option("--se/--no-se", default=None, help="Squeeze-Excite (default no).")
    @click.option(
        "--no-affine", "affine", flag_value=False, default=None, help="Normalization without gamma, beta."
    )
    @click.option(
        "--num-classes", type=click.IntRange(1), metavar="N", help="Size of the head (default 1000)."
    )
    @click.option("--cifar", is_flag=True, default=None, help="The 32 px form: stem stride 1, no max-pool.")
    @click.option("--norm", type=click.Choice(NORMS), help="Normalization (default: the network's first).")
    @click.option(
        "--mimic-variant", type=click.Choice(MIMIC_VARIANTS), help="MimicNorm's code (default) or its paper."
    )
    @click.option(
        "--no-weight-mean", "weight_mean", flag_value=False, default=None, help="MimicNorm without it."
    )
    @click.option("--no-last-bn", "last_bn", flag_value=False, default=None, help="MimicNorm without it.")
    @click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, help="Of weights and inputs."
    )
    @click.option("--pretrained", is_flag=True, help="torchvision's or timm's published weights (downloads).")
    @click.option(
        "--images", type=click.Path(path_type=Path), metavar="DIR", help="Your images instead of ours."
    )
    @wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        fields = {name: kwargs.pop(name) for name in ModelOptions.__dataclass_fields__}
        return function(*args, options=ModelOptions(**fields), **kwargs)

    return wrapper
