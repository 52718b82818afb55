"""From bundles to a job: rows, the audit that they may be compared, and the order of the visits."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from finet_deploy import __version__
from finet_deploy.bench.protocol import Artifact, DeviceInfo, Golden, Job, Row, Settings, Visit, VisitRequest
from finet_deploy.bench.schedule import plan_visits
from finet_deploy.bench.summary import fusion_label
from finet_deploy.errors import FinetDeployError, UsageError, suggest
from finet_deploy.files import resolve_inside
from finet_deploy.verify.precision import artifact_limits

if TYPE_CHECKING:
    from finet_deploy.export import ArtifactEntry, Bundle

__all__ = ["BenchRow", "build_job", "bundle_row", "differences", "same_file_row", "visit_request"]

CHECKED_INPUTS = 2


@dataclass(frozen=True)
class BenchRow:
    """A bundle to measure; without a label it goes by the bundle's name."""

    bundle: Path
    label: str | None = None


def build_job(
    rows: Sequence[BenchRow],
    *,
    device: DeviceInfo,
    settings: Settings,
    threads: int,
    runtimes: Sequence[str] | None,
    folder: Path,
    suite: str | None = None,
    mixed_fusion: bool = False,
    mixed_precision: bool = False,
    runner: str | None = None,
    supported: Sequence[str] | None = None,
) -> Job:
    """The job that measures `rows`, the first of them being the baseline.

    runner: the kind of the device's runner. supported: the runtimes that it has; `None`: all. Runtimes that nobody
    asked for and it lacks are left out, and the job says so.

    Raises `UsageError` for rows that must not share a table, naming them, and for impossible options;
    `FinetDeployError` for a bundle that cannot be read.
    """
    from finet_deploy.export import read_bundle

    if not rows:
        raise UsageError("nothing to measure", do="name at least one bundle")
    _check_threads(threads, device)
    bundles = [read_bundle(row.bundle) for row in rows]
    labels = _labels(rows, bundles)
    groups: list[list[Row]] = []
    chosen, left_out = _runtimes(bundles, runtimes, supported, device.name)
    for runtime in chosen:
        group = [
            bundle_row(
                f"{runtime}/{n}", label, bundle, runtime, threads=threads, folder=folder, baseline=n == 0
            )
            for n, (label, bundle) in enumerate(zip(labels, bundles))
        ]
        _audit(group, mixed_fusion, mixed_precision)
        if mixed_precision:
            group = _label_precision(group)
        if settings.aa_row:
            group.append(same_file_row(group[0]))
        groups.append(_label_fusion(group) if mixed_fusion else group)
    return Job(
        tool_version=__version__,
        created_utc=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        suite=suite,
        mixed_fusion=mixed_fusion,
        mixed_precision=mixed_precision,
        device=device,
        runner=runner,
        left_out=tuple(left_out),
        settings=settings,
        rows=tuple(row for group in groups for row in group),
        visits=plan_visits([[row.id for row in group] for group in groups], settings.rounds),
    )


def visit_request(job: Job, visit: Visit, folder: Path) -> VisitRequest:
    """What the runner gets, with the row's paths made absolute. `folder` is the run folder."""
    row = next(row for row in job.rows if row.id == visit.row)
    bundle = folder.resolve() / row.bundle
    return VisitRequest(
        settings=job.settings,
        visit=visit,
        row=row,
        artifact_path=str(resolve_inside(bundle, row.artifact.file)),
        golden_path=str(resolve_inside(bundle, row.golden.file)),
    )


def differences(old: Job, new: Job) -> list[str]:
    """The fields in which two jobs differ, the moment of creation aside."""
    found: list[str] = []
    _differences(msgspec.to_builtins(old), msgspec.to_builtins(new), "", found)
    return [path for path in found if path != "created_utc"]


def _differences(old: Any, new: Any, path: str, found: list[str]) -> None:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            _differences(old.get(key), new.get(key), f"{path}.{key}" if path else key, found)
    elif isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
        for index, (a, b) in enumerate(zip(old, new)):
            _differences(a, b, f"{path}[{index}]", found)
    elif old != new:
        found.append(path)


def _check_threads(threads: int, device: DeviceInfo) -> None:
    if threads < 1:
        raise UsageError(f"--threads {threads}", do="use 1 or more")
    if threads > device.cpu_count:
        do = f"use 1 to {device.cpu_count}"
        raise UsageError(
            f"--threads {threads}, but {device.name} has {device.cpu_count} CPUs to run on", do=do
        )


def _labels(rows: Sequence[BenchRow], bundles: Sequence[Bundle]) -> list[str]:
    labels = [row.label or bundle.manifest.name for row, bundle in zip(rows, bundles)]
    kinds = {(label, bundle.manifest.fused, _precisions(bundle)) for label, bundle in zip(labels, bundles)}
    if len(kinds) < len(labels):
        twice = sorted({label for label in labels if labels.count(label) > 1})
        raise UsageError(
            f"two rows are called {', '.join(map(repr, twice))}", do="give each bundle a label of its own"
        )
    return labels


def _precisions(bundle: Bundle) -> frozenset[str]:
    return frozenset(artifact.dtype for artifact in bundle.manifest.artifacts.values())


def _runtimes(
    bundles: Sequence[Bundle], wanted: Sequence[str] | None, supported: Sequence[str] | None, device: str
) -> tuple[list[str], list[str]]:
    """The runtimes to measure: the wanted ones, or all of the bundles' that the runner has; and those that it lacks."""
    have = [{artifact.runtime for artifact in bundle.manifest.artifacts.values()} for bundle in bundles]
    known = dict.fromkeys(a.runtime for bundle in bundles for a in bundle.manifest.artifacts.values())
    for runtime in wanted or ():
        if runtime not in known:
            do = suggest(runtime, known) or f"these bundles have files for {', '.join(known)}"
            raise UsageError(f"no file for runtime {runtime!r} in these bundles", do=do)
    chosen, foreign = list(dict.fromkeys(wanted)) if wanted else list(known), []
    if supported is not None:
        foreign = [runtime for runtime in chosen if runtime not in supported]
        chosen = [runtime for runtime in chosen if runtime in supported]
        if foreign and (wanted or not chosen):
            do = f"it has {', '.join(supported)}"
            raise UsageError(f"the runner of {device} has no {', '.join(foreign)}", do=do)
    for runtime in chosen:
        without = [bundle.manifest.name for bundle, runs in zip(bundles, have) if runtime not in runs]
        if without:
            do = "export that format too, or choose other runtimes"
            raise UsageError(f"no file for runtime {runtime!r} in {', '.join(without)}", do=do)
    return chosen, foreign


def bundle_row(
    id: str, label: str, bundle: Bundle, runtime: str, *, threads: int, folder: Path, baseline: bool
) -> Row:
    """The row of a job in the run folder `folder` that measures the bundle's file for `runtime`.

    FinetDeployError for a bundle that was not proved, or has no photograph to be timed on.
    """
    manifest = bundle.manifest
    artifact = next(a for a in manifest.artifacts.values() if a.runtime == runtime)
    if not manifest.certificate.passed:
        do = "export it again, and see its certificate.json for the check that failed"
        raise FinetDeployError("the bundle's certificate did not pass", where=str(bundle.path), do=do)
    return Row(
        id=id,
        label=label,
        baseline=baseline,
        bundle=os.path.relpath(bundle.path.resolve(), folder.resolve()),
        artifact=Artifact(
            file=artifact.file,
            sha256=artifact.sha256,
            bytes=artifact.bytes,
            format=artifact.format,
            runtime=artifact.runtime,
            dtype=artifact.dtype,
            delegates=artifact.delegates,
            delegated_share=artifact.delegated_share,
            nodes_outside=artifact.nodes_outside,
            normalization_ops=artifact.normalization_ops,
            notices=tuple(artifact.notices),
        ),
        golden=_golden(bundle, artifact),
        threads=threads,
        input_shape=tuple(manifest.input.shape),
        fused=manifest.fused,
        trained=manifest.source.trained,
        params=manifest.params,
        macs=manifest.macs,
        certificate_passed=manifest.certificate.passed,
    )


def _golden(bundle: Bundle, artifact: ArtifactEntry) -> Golden:
    """Time on a photograph: noise and constants can hide what data does to speed. Check it and one other input."""
    golden = bundle.manifest.golden
    photos = [name for name in golden.inputs if name.startswith("photo")]
    if not photos:
        do = "export the bundle again"
        raise FinetDeployError("no photograph among the golden inputs", where=str(bundle.path), do=do)
    checked = [photos[0], *(name for name in golden.inputs if name != photos[0])][:CHECKED_INPUTS]
    return Golden(
        file=golden.file,
        sha256=golden.sha256,
        timed_input=photos[0],
        output_limits=artifact_limits(artifact.format, artifact.dtype, bundle.certificate(), checked),
    )


def same_file_row(row: Row) -> Row:
    """The A/A row of `row`: the same file under another name."""
    return msgspec.structs.replace(
        row, id=f"{row.id}-aa", label=f"A/A: {row.label}", baseline=False, aa_of=row.id
    )


def _label_fusion(group: Iterable[Row]) -> list[Row]:
    return [msgspec.structs.replace(row, label=f"{row.label} ({fusion_label(row)})") for row in group]


def _label_precision(group: Iterable[Row]) -> list[Row]:
    return [msgspec.structs.replace(row, label=f"{row.label} ({row.artifact.dtype})") for row in group]


def _audit(rows: Sequence[Row], mixed_fusion: bool, mixed_precision: bool) -> None:
    """Rows of one table have the same input and precision, and are fused to the same degree."""
    _same(
        rows, "input shapes", lambda row: "x".join(map(str, row.input_shape)), "measure them in separate runs"
    )
    if not mixed_precision:
        do = "measure them in separate runs, or say that precision is what is compared"
        _same(rows, "precisions", lambda row: row.artifact.dtype, do)
    if not mixed_fusion:
        do = "export them fused alike, or say that fusion is what is compared"
        _same(rows, "degrees of fusion", fusion_label, do)


def _same(rows: Sequence[Row], what: str, key: Any, do: str) -> None:
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(key(row), []).append(row.label)
    if len(found) > 1:
        listed = "; ".join(f"{value}: {', '.join(labels)}" for value, labels in found.items())
        runtime = rows[0].artifact.runtime
        raise UsageError(f"rows of different {what} must not share a table: {listed}", where=runtime, do=do)
