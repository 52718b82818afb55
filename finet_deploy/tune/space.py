"""What may be tried: recipes for bundles, and from the bundles that there are, candidates. Pure.

Passes are not tried blindly. One that changed nothing in the default bundle changes nothing when it is left out, so
only those that did are left out, one at a time and all together; and those that choose shapes for a core are tried
with other cores' shapes.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

import msgspec

from finet_deploy.errors import UsageError
from finet_deploy.export.bundle import Bundle
from finet_deploy.export.schema import ArtifactEntry, Manifest
from finet_deploy.passes.kernels import CORES, DEFAULT_CORE, kernels
from finet_deploy.passes.names import default_passes
from finet_deploy.tune.model import Candidate, LeftOut, Recipe
from finet_deploy.verify import Certificate

__all__ = ["SHAPES", "candidates", "default_recipe", "further_recipes", "shape_cores", "thread_counts"]

SHAPES = ("pad-channels", "split-pixels")  # the passes that look at the core
# Where nothing is known of the device's cores: tiles of another height than the default's, and other costs.
OTHER_SHAPES = ("cortex-a53", "cortex-a78")


def shape_cores(known: Sequence[str]) -> tuple[str, ...]:
    """The cores whose shapes are worth a try beside the default's: the device's own, or where they are unknown, some.

    Cores whose kernels cost the same are one.
    """
    tried = [DEFAULT_CORE]
    for name in [name for name in known if name in CORES] or OTHER_SHAPES:
        if all(kernels(name) != kernels(other) for other in tried):
            tried.append(name)
    return tuple(tried[1:])


def default_recipe(dtype: str, formats: Sequence[str]) -> Recipe:
    """What `export` writes in this precision when nobody says otherwise."""
    return _recipe(dtype, "default", DEFAULT_CORE, formats)


def further_recipes(bundle: Manifest, cores: Sequence[str]) -> list[Recipe]:
    """The other forms of a default bundle's network, most promising first. cores: from `shape_cores`.

    A recipe of one format has it in its name: where a default was exported format by format, both have such recipes.
    """
    dtype = next(iter(bundle.artifacts.values())).dtype
    changed = {fmt: _changed_by(entry) for fmt, entry in bundle.artifacts.items()}
    shaped = [fmt for fmt in changed if set(SHAPES) & set(default_passes(fmt, dtype))]
    recipes = [_other(dtype, "default", core, shaped) for core in cores if shaped]
    effective = dict.fromkeys(name for names in changed.values() for name in names)
    if dtype == "float32":
        for name in sorted(effective, key=lambda name: name not in SHAPES):
            several = [fmt for fmt, names in changed.items() if name in names and len(names) > 1]
            if several:
                recipes.append(_other(dtype, f"default,-{name}", DEFAULT_CORE, several))
    some = [fmt for fmt, names in changed.items() if names]
    if some:
        recipes.append(_other(dtype, "none", DEFAULT_CORE, some))
    return recipes


def _other(dtype: str, passes: str, core: str, formats: Sequence[str]) -> Recipe:
    recipe = _recipe(dtype, passes, core, formats)
    if len(formats) > 1:
        return recipe
    return msgspec.structs.replace(recipe, name=f"{recipe.name}-{formats[0]}")


def _recipe(dtype: str, passes: str, core: str, formats: Sequence[str]) -> Recipe:
    words = passes.replace("default,-", "without-")
    name = f"{dtype}-{words}" + ("" if core == DEFAULT_CORE else f"-{core}")
    return Recipe(name=name, dtype=dtype, passes=passes, core=core, formats=tuple(formats))


def _changed_by(entry: ArtifactEntry) -> tuple[str, ...]:
    return tuple(item.name for item in entry.passes or ())


def thread_counts(cpus: int, default: int) -> tuple[int, ...]:
    """Powers of two up to all CPUs, all of them, and what the device takes by default, which comes first."""
    powers = [1 << n for n in range(cpus.bit_length()) if 1 << n <= cpus]
    return tuple(dict.fromkeys([default, *powers, cpus]))


def candidates(
    bundles: Mapping[Recipe, Bundle],
    *,
    formats: Sequence[str],
    threads: Sequence[int],
    kinds: Mapping[str, int],
) -> tuple[list[Candidate], list[LeftOut]]:
    """Every file with every number of threads, the default bundle's first; and what is the same file as another one.

    formats: those that are wanted of a bundle that has more. threads: the device's own number first. kinds: kind of
    cores -> how many of them there are, where visits can be bound to a kind. UsageError when there is nothing to try.
    """
    files, left_out = _files(bundles, formats)
    if not files or not threads:
        raise UsageError("nothing to try", do="allow at least one runtime, precision and number of threads")
    found = [_with(file, count, None) for count in threads for file in files]
    for kind, size in kinds.items():
        found += [_with(file, count, kind) for count in threads if count <= size for file in files]
    return found, left_out


def _files(bundles: Mapping[Recipe, Bundle], formats: Sequence[str]) -> tuple[list[Candidate], list[LeftOut]]:
    """One candidate (with no threads yet) for each file that is not the same as an earlier one."""
    seen: dict[object, Candidate] = {}
    left_out: list[LeftOut] = []
    for recipe, bundle in bundles.items():
        certificate = bundle.certificate()
        entries = bundle.manifest.artifacts
        for fmt, entry in ((fmt, entries[fmt]) for fmt in formats if fmt in entries):
            file = _file(recipe, fmt, entry, certificate)
            # The same rewrites of the same network give the same file, but for what a writer notes about itself.
            changes = tuple((item.name, item.changes) for item in entry.passes or ())
            key = (fmt, entry.dtype, changes, tuple(sorted(entry.op_counts.items())))
            if key in seen:
                left_out.append(LeftOut(what=file.label, reason=f"the same network as {seen[key].label}"))
            else:
                seen[key] = file
    return list(seen.values()), left_out


def _file(recipe: Recipe, fmt: str, entry: ArtifactEntry, certificate: Certificate) -> Candidate:
    return Candidate(
        id=f"{fmt}-{recipe.name}",
        bundle=recipe.name,
        format=fmt,
        runtime=entry.runtime,
        dtype=entry.dtype,
        passes=recipe.passes,
        core=entry.core or recipe.core,
        threads=1,
        cores=None,
        changed_by=_changed_by(entry),
        sqnr_db=_sqnr_db(certificate, fmt),
        bytes=entry.bytes,
        sha256=entry.sha256,
    )


def _with(file: Candidate, threads: int, kind: str | None) -> Candidate:
    name = f"{file.id}-{threads}t" + (f"-{kind}" if kind else "")
    return msgspec.structs.replace(file, id=name, threads=threads, cores=kind)


def _sqnr_db(certificate: Certificate, fmt: str) -> float | None:
    """The median SQNR over the photographs that the export was judged on; None where there is no figure."""
    try:
        rows = certificate.check(f"artifact/{fmt}").inputs
    except KeyError:
        return None
    known = [row.sqnr_db for row in rows if row.name.startswith("photo")]
    figures = [value for value in known if value is not None]
    return statistics.median(figures) if figures and len(figures) == len(known) else None
