"""The checks of a bundle, planned before any of them is made: one test item each, in a fixed order.

No check trusts what another one found: each reads what it needs, with its hash, so that they can be made in any order
and in different processes. What a certificate says is worked out again, and every file is run against golden outputs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.export.bundle import (
    MANIFEST_FILE,
    ListedFile,
    bundle_files,
    check_file,
    check_verdict,
    listed_files,
)
from finet_deploy.export.judge import judge_files
from finet_deploy.guard.bundles import GuardedBundle
from finet_deploy.guard.certificates import missing_checks, ordinary_names, rejudged
from finet_deploy.guard.graphs import check_delegation, check_form, check_graph
from finet_deploy.guard.policy import Policy
from finet_deploy.runtimes import available_runtimes
from finet_deploy.verify import Certificate, Check, Limits
from finet_deploy.verify.compare import relative_error

__all__ = ["GuardCheck", "guard_bundle", "plan_checks"]

MANIFEST = "manifest"


@dataclass(frozen=True)
class GuardCheck:
    """A check that can be made. name: as in a certificate. file: of the bundle, that it is about."""

    name: str
    file: str
    make: Callable[[], Check]

    def run(self) -> Check:
        """The check, made. What is wrong with a file is a check that did not pass, never an exception."""
        try:
            return self.make()
        except FinetDeployError as error:
            return Check(name=self.name, stage=_stage(self.name), passed=False, message=_short(error))


def _stage(name: str) -> str:
    return name.partition("/")[0]


def _short(error: FinetDeployError) -> str:
    """Without the folder, which every report of a check names already."""
    where = "" if error.where is None else f" [{Path(error.where).name}]"
    return f"{error.message}{where}" + (f"; {error.do}" if error.do else "")


def plan_checks(folder: Path, policy: Policy | None = None) -> tuple[GuardCheck, ...]:
    """What has to be checked of the bundle in `folder`. UsageError when it is no bundle; a damaged one has checks."""
    guarded = GuardedBundle(folder, policy or Policy())
    try:
        manifest = guarded.manifest
    except UsageError:
        raise
    except FinetDeployError as error:
        return (GuardCheck(MANIFEST, MANIFEST_FILE, partial(_raise, error)),)
    files = listed_files(manifest)
    plan = [GuardCheck(MANIFEST, MANIFEST_FILE, partial(_manifest, guarded))]
    plan += [GuardCheck(f"hash/{entry.file}", entry.file, partial(_hash, guarded, entry)) for entry in files]
    plan.append(GuardCheck("files/unlisted", MANIFEST_FILE, partial(_unlisted, guarded)))
    plan += _certificate_checks(guarded)
    if guarded.policy.quick:
        return tuple(plan)
    golden = manifest.golden.file
    plan.append(GuardCheck("form/fused", MANIFEST_FILE, partial(check_form, guarded)))
    plan.append(GuardCheck("golden/distinct", golden, partial(_distinct, guarded)))
    if guarded.policy.checkpoints:
        from finet_deploy.guard.source import check_golden, check_weights

        plan.append(GuardCheck("source/weights", MANIFEST_FILE, partial(check_weights, guarded)))
        plan.append(GuardCheck("source/golden", golden, partial(check_golden, guarded)))
    for fmt, entry in manifest.artifacts.items():
        plan.append(GuardCheck(f"graph/{fmt}", entry.file, partial(check_graph, guarded, fmt)))
        if entry.delegates is not None:
            plan.append(GuardCheck(f"delegation/{fmt}", entry.file, partial(check_delegation, guarded, fmt)))
        plan.append(GuardCheck(f"artifact/{fmt}", entry.file, partial(_artifact, guarded, fmt)))
    return tuple(plan)


def guard_bundle(
    folder: Path, policy: Policy | None = None, progress: Callable[[str], None] = lambda step: None
) -> Certificate:
    """All checks of a bundle, made one after another, as a certificate of their own, called as the folder is."""
    checks = []
    plan = plan_checks(folder, policy)
    for item in plan:
        checks.append(item.run())
        progress(f"{folder.name}: {item.name}")
    return Certificate(
        subject=folder.as_posix(),
        expected=tuple(item.name for item in plan),
        checks=tuple(checks),
        versions={runtime: version for runtime, version in available_runtimes().items() if version},
    )


def _raise(error: FinetDeployError) -> Check:
    raise error


def _passed(name: str, message: str) -> Check:
    return Check(name=name, stage=_stage(name), passed=True, message=message)


def _manifest(guarded: GuardedBundle) -> Check:
    guarded.require(guarded.manifest.certificate.file)
    check_verdict(guarded.bundle)
    return _passed(MANIFEST, f"schema version {guarded.manifest.schema_version}, {guarded.manifest.name}")


def _hash(guarded: GuardedBundle, entry: ListedFile) -> Check:
    check_file(guarded.path, entry)
    return _passed(f"hash/{entry.file}", f"SHA-256 {entry.sha256[:12]}... is the manifest's")


def _unlisted(guarded: GuardedBundle) -> Check:
    """Files beside the listed ones: weights outside of a model's file, leftovers of another export."""
    extra = sorted({item.name for item in guarded.path.iterdir()} - bundle_files(guarded.manifest))
    if extra:
        raise FinetDeployError(
            f"the manifest does not list {', '.join(extra[:3])}", do="remove it, or export again"
        )
    return _passed("files/unlisted", "nothing but what the manifest lists")


def _certificate_checks(guarded: GuardedBundle) -> Iterable[GuardCheck]:
    file = guarded.manifest.certificate.file
    name = "certificate/complete"
    try:
        certificate = guarded.certificate
    except FinetDeployError as error:
        return [GuardCheck(name, file, partial(_raise, error))]
    plan = [GuardCheck(name, file, partial(_complete, guarded))]
    for check in certificate.checks:
        plan.append(GuardCheck(f"certificate/{check.name}", file, partial(_stored, guarded, check)))
    return plan


def _complete(guarded: GuardedBundle) -> Check:
    missing = missing_checks(guarded.certificate, guarded.manifest.artifacts)
    if missing:
        raise FinetDeployError(
            f"the certificate has no check {', '.join(missing[:3])}", do="export the model again"
        )
    return _passed("certificate/complete", f"{len(guarded.certificate.checks)} checks")


def _stored(guarded: GuardedBundle, stored: Check) -> Check:
    problems = rejudged(stored, guarded.golden)
    if not problems:
        problems = _softer_than_demanded(guarded, stored)
    return msgspec.structs.replace(
        stored,
        name=f"certificate/{stored.name}",
        stage="certificate",
        passed=False if problems else stored.passed,
        message="; ".join(problems) or stored.message,
    )


def _softer_than_demanded(guarded: GuardedBundle, stored: Check) -> list[str]:
    """A file below fp32 that its export held to less than the repository demands, and that is not better by luck."""
    floor = guarded.policy.sqnr_floor(str(stored.figures.get("dtype")))
    found = stored.figures.get("median_sqnr_db")
    if floor is None or not isinstance(found, float) or found >= floor:
        return []
    stated = stored.limits.get("median_sqnr_db")
    return [f"SQNR {found:.1f} dB; the export was held to {stated} dB, this repository demands {floor:g} dB"]


def _distinct(guarded: GuardedBundle) -> Check:
    """Outputs of different pictures and noise lie far apart: a network that ignores its input passes any comparison."""
    limits, golden = Limits(), guarded.golden
    needed = limits.sensitivity_factor * limits.fp32
    distances = {}
    for a, b in itertools.combinations(ordinary_names(golden), 2):
        if not np.array_equal(golden.inputs[a], golden.inputs[b]):
            distances[a, b] = relative_error(golden.outputs[a], golden.outputs[b])[0]
    nearest = min(distances, key=lambda pair: distances[pair], default=None)
    if nearest is None:
        raise FinetDeployError("there are no two different inputs", do="export the model again")
    text = f"outputs of {nearest[0]} and {nearest[1]}, the nearest pair, are {distances[nearest]:.2g} apart"
    return Check(
        name="golden/distinct",
        stage="golden",
        passed=distances[nearest] >= needed,
        message=f"{text}, needed {needed:g}",
        figures={"smallest_distance": distances[nearest]},
        limits={"smallest_distance": needed},
    )


def _artifact(guarded: GuardedBundle, fmt: str) -> Check:
    """The file, run by its own runtime on the golden inputs; where it departs, the module that departs first."""
    dtype = guarded.manifest.artifacts[fmt].dtype
    try:  # no damaged file reaches a runtime: some end the process
        path, golden, certificate = guarded.artifact(fmt), guarded.golden, guarded.certificate
    except FinetDeployError as error:
        reason = f"not run: {_short(error)}"
        return Check(name=f"artifact/{fmt}", stage="artifact", passed=None, message="not run", reason=reason)
    (check,) = judge_files(
        {fmt: path}, golden, certificate, _limits(guarded, fmt, dtype), dtypes={fmt: dtype}
    )
    if check.passed is not False or not guarded.policy.checkpoints:
        return check
    from finet_deploy.guard.source import first_wrong_module

    found = first_wrong_module(guarded, fmt)
    return check if found is None else msgspec.structs.replace(check, message=f"{check.message}; {found}")


def _limits(guarded: GuardedBundle, fmt: str, dtype: str) -> Limits:
    """The certificate's own limit where it is stricter than the repository's."""
    floor = guarded.policy.sqnr_floor(dtype)
    if floor is None:
        return Limits()
    try:
        stated = guarded.certificate.check(f"artifact/{fmt}").limits.get("median_sqnr_db", floor)
    except KeyError:
        stated = floor
    return Limits().with_sqnr_db(dtype, max(floor, stated))
