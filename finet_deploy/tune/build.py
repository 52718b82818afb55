"""Exporting the bundles of a search, the default first, within its share of the budget."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.export import Bundle, read_bundle
from finet_deploy.tune.budget import BUILD_SHARE, Budget, format_seconds
from finet_deploy.tune.model import LeftOut, Recipe
from finet_deploy.tune.space import default_recipe, further_recipes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from finet_deploy.images import Preprocessing
    from finet_deploy.quantize import Calibration
    from finet_deploy.verify import Limits

__all__ = ["Built", "Network", "build_all", "exporter"]

# An int8 export measures ranges and searches besides; a first guess, until one was made.
INT8_FACTOR = 2.0

Export = Callable[[Recipe, Path], Bundle]
Tell = Callable[[str], None]


@dataclass(frozen=True)
class Network:
    """What is exported again and again. See `export`; calibration: None where nothing is int8."""

    model: nn.Module
    inputs: Mapping[str, Tensor]
    preprocessing: Preprocessing | None
    calibration: Calibration | None


def exporter(network: Network, limits: Limits) -> Export:
    """`export` of this network by a recipe, into a folder."""
    from finet_deploy.export import export

    def one(recipe: Recipe, path: Path) -> Bundle:
        lower = recipe.dtype != "float32"
        return export(
            network.model,
            path,
            formats=recipe.formats,
            passes=recipe.passes,
            core=recipe.core,
            inputs=None if lower else network.inputs,
            preprocessing=network.preprocessing,
            dtype=recipe.dtype,
            calibration=network.calibration if lower else None,
            limits=limits,
        )

    return one


@dataclass
class Built:
    """The bundles by their recipes, the default's first, and what was not exported."""

    bundles: dict[Recipe, Bundle] = field(default_factory=dict)
    left_out: list[LeftOut] = field(default_factory=list)


def build_all(
    export: Export,
    folder: Path,
    *,
    dtypes: Sequence[str],
    formats: dict[str, tuple[str, ...]],
    cores: Sequence[str],
    budget: Budget,
    tell: Tell,
) -> Built:
    """Export into folders below `folder`; bundles that are already there are taken as they are.

    dtypes: precisions, the default's first. formats: precision -> what to export. A bundle whose certificate does not
    pass, or that cannot be exported, is left out with the reason; but the first one is the default, without which
    there is nothing to compare: its FinetDeployError is raised.
    """
    built = Built()
    for dtype in dtypes:
        if formats[dtype]:
            _build(default_recipe(dtype, formats[dtype]), export, folder, built, budget, tell)
        else:
            built.left_out.append(LeftOut(what=dtype, reason="none of the runtimes has files in it"))
    for bundle in list(built.bundles.values()):
        for recipe in further_recipes(bundle.manifest, cores):
            _build(recipe, export, folder, built, budget, tell)
    return built


def _build(recipe: Recipe, export: Export, folder: Path, built: Built, budget: Budget, tell: Tell) -> None:
    path = folder / recipe.name
    expected = _expected(recipe.dtype, budget)
    if path.exists():
        tell(f"{recipe.name}: already exported")
        built.bundles[recipe] = read_bundle(path)
        return
    if built.bundles and not budget.fits(expected, share=BUILD_SHARE):
        reason = f"no time to export it: it takes some {format_seconds(expected)}"
        built.left_out.append(LeftOut(what=f"bundle {recipe.name}", reason=reason))
        return
    tell(f"export {recipe.name}")
    done = budget.timed(recipe.dtype)
    try:
        built.bundles[recipe] = export(recipe, path)
    except UsageError:
        raise
    except FinetDeployError as error:
        if not built.bundles:
            raise
        if len(recipe.formats) == 1:
            built.left_out.append(LeftOut(what=f"bundle {recipe.name}", reason=str(error)))
    done()
    if recipe not in built.bundles and len(recipe.formats) > 1:  # one file's failure is not the other's
        for fmt in recipe.formats:
            single = msgspec.structs.replace(recipe, name=f"{recipe.name}-{fmt}", formats=(fmt,))
            _build(single, export, folder, built, budget, tell)


def _expected(dtype: str, budget: Budget) -> float:
    first = budget.longest("float32", 0.0)
    return first if dtype == "float32" else budget.longest(dtype, INT8_FACTOR * first)
