"""What `finet-deploy tune` says before and after its search."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from finet_deploy.commands.console import Console

if TYPE_CHECKING:
    from finet_deploy.tune.model import TuneResult
    from finet_deploy.tune.place import Place
    from finet_deploy.tune.search import Asked

__all__ = ["PRECISION_NAMES", "describe", "show"]

PRECISION_NAMES = {"float32": "fp32", "int8": "int8"}


def describe(
    asked: Asked, place: Place, threads: tuple[int, ...], seconds: float, given: bool, console: Console
) -> None:
    """What would be searched; how many bundles that takes is known once the default one is there."""
    from finet_deploy.runtimes import FORMATS
    from finet_deploy.tune.budget import format_seconds

    passes = "those of the bundle"
    if not given:
        passes = "default; none; without each one that changes the network"
        passes += f"; with shapes for {', '.join(place.shapes())}" if place.shapes() else ""
    found = {
        "subject": asked.subject,
        "device": place.name,
        "emulated": place.emulated,
        "runtimes": [FORMATS[fmt] for fmt in asked.formats],
        "precisions": ["those of the bundle"]
        if given
        else [PRECISION_NAMES[dtype] for dtype in asked.dtypes],
        "passes": passes,
        "threads": list(threads),
        "cores": list(place.kinds()),
        "min_sqnr_db": asked.min_sqnr_db,
        "budget_seconds": seconds,
    }
    console.document(found)
    where = f"{place.name}{' (emulated: instructions, not time)' if place.core else ''}"
    console.result(f"{asked.subject} on {where}, within {format_seconds(seconds)}")
    for name in ("runtimes", "precisions", "threads", "cores"):
        values: Any = found[name]
        if values:
            console.result(f"{name:<11}{', '.join(str(value) for value in values)}")
    console.result(f"{'passes':<11}{passes}")
    console.result(f"{'limit':<11}int8: an SQNR of at least {asked.min_sqnr_db:g} dB")


def show(result: TuneResult, output: Path, console: Console) -> None:
    """What was found, and where it is."""
    import msgspec

    from finet_deploy.tune.render import render_markdown

    console.result(render_markdown(result))
    console.document({"folder": str(output), **msgspec.to_builtins(result)})
    for item in result.left_out:
        console.detail(f"left out: {item.what}: {item.reason}")
    for note in result.notes:
        console.warn(note)
    console.note(f"{result.sentence}.")
    console.note(f"bundle   {output / 'bundle'}")
    console.note(f"tables   {', '.join(str(output / f'tune.{s}') for s in ('md', 'csv', 'json', 'svg'))}")
