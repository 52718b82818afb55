"""The bundles of a suite: exported on first use, reused while they are what an export would write today."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from finet_deploy import __version__
from finet_deploy.api.source import ModelOptions, load_source
from finet_deploy.errors import FinetDeployError, UsageError

if TYPE_CHECKING:
    from finet_deploy.api.listener import Listener
    from finet_deploy.bench.plan import BenchRow
    from finet_deploy.bench.settings import Suite, SuiteRow
    from finet_deploy.export import Bundle

__all__ = ["suite_rows"]


def suite_rows(suite: Suite, folder: Path, listener: Listener) -> list[BenchRow]:
    """A bundle for every row of the suite below `folder`, exported where it is not there yet (announced).

    Raises UsageError when a folder of that name holds somebody's own bundle: it is never replaced.
    """
    from finet_deploy.bench.plan import BenchRow
    from finet_deploy.runtimes import FORMATS

    rows = [BenchRow(folder / row.name, row.label) for row in suite.rows]
    missing = [row for row in suite.rows if not _reusable(row, folder / row.name, listener)]
    steps_each = 2 * len(FORMATS) + 3
    with listener.progress("export", total=steps_each * len(missing)) as step:
        for row in missing:
            _export(row, folder / row.name, listener, lambda text, row=row: step(f"{row.label}: {text}"))
    return rows


def _options(row: SuiteRow) -> ModelOptions:
    options: dict[str, Any] = dict(row.options)
    return ModelOptions(**options)


def _reusable(row: SuiteRow, path: Path, listener: Listener) -> bool:
    from finet_deploy.export import read_bundle

    if not path.exists():
        return False
    try:
        bundle = read_bundle(path)
    except FinetDeployError as error:
        raise UsageError(
            f"this folder is needed for {row.label!r} and holds something else: {error}",
            where=str(path),
            do="move it away, or choose another --bundles-dir",
        ) from error
    changed = _differences(row, bundle)
    if "network" in changed:
        raise UsageError(
            f"this folder is needed for {row.label!r} and holds another bundle ({bundle.manifest.name})",
            where=str(path),
            do="move it away, or choose another --bundles-dir",
        )
    listener.note(f"{path}: {'another ' + ', '.join(changed) + ': exported again' if changed else 'reused'}")
    return not changed


def _differences(row: SuiteRow, bundle: Bundle) -> list[str]:
    """In what a bundle differs from what an export would write today."""
    from finet_deploy.runtimes import FORMATS, available_runtimes

    manifest, options = bundle.manifest, _options(row)
    wanted = options.config(row.model).to_json_object()
    own = manifest.model_config == wanted and manifest.fused == row.fuse and manifest.source.kind == "seeded"
    if not own or manifest.source.seed != options.seed:
        return ["network"]
    changed = [] if manifest.tool_version == __version__ else ["finet-deploy version"]
    versions = available_runtimes()
    for fmt in FORMATS:
        entry = manifest.artifacts.get(fmt)
        if entry is None or entry.runtime_version != versions[entry.runtime]:
            changed.append(f"{fmt} runtime")
    return changed


def _export(row: SuiteRow, path: Path, listener: Listener, step: Any) -> None:
    from finet_deploy.export import export

    loaded = load_source(row.model, _options(row), listener)
    export(
        loaded.model,
        path,
        fuse_model=row.fuse,
        inputs=loaded.inputs,
        preprocessing=loaded.preprocessing,
        overwrite=path.exists(),
        progress=step,
    )
