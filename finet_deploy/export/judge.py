"""Judging exported files: each one run by its own runtime, in a process of its own, against the float64 truth."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

from finet_deploy.errors import FinetDeployError
from finet_deploy.export.bundle import Bundle, Golden, read_bundle
from finet_deploy.runtimes import available_runtimes, require_runtime, run_isolated, runtime_of
from finet_deploy.verify import Certificate, Check, Limits, compare, judge_artifact

__all__ = ["CheckFailed", "check_name", "judge_files", "verify_bundle"]

STAGE = "artifact"
PARALLEL = 2  # processes at once: most of their time is importing a runtime


class CheckFailed(FinetDeployError):
    """A certificate did not pass, so nothing was written. `certificate` holds the evidence."""

    def __init__(self, certificate: Certificate) -> None:
        self.certificate = certificate
        failed = [f"{check.name}: {check.reason or check.message}" for check in certificate.failures]
        failed += [f"{name}: not made" for name in certificate.missing]
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        super().__init__(
            f"check failed: {failed[0] if failed else 'nothing was checked'}{more}",
            where=certificate.subject,
            do="nothing was written; run `finet-deploy verify` for all figures",
        )


def check_name(fmt: str) -> str:
    """The name of an artifact's check in a certificate."""
    return f"{STAGE}/{fmt}"


def judge_files(
    paths: Mapping[str, Path],
    golden: Golden,
    certificate: Certificate,
    limits: Limits,
    tell: Callable[[str], None] = lambda _step: None,
    dtypes: Mapping[str, str] = MappingProxyType({}),
) -> tuple[Check, ...]:
    """One check a file (format -> path): its outputs on the golden inputs against the golden outputs.

    certificate: the network's own, which knows the inputs on which fp32 itself is less exact, or the bundle's. dtypes:
    format -> the file's precision, fp32 where it is not given. A runtime that is
    not installed, or that fails on the file, gives a check that did not pass; nothing is raised.
    """
    checks = []
    with ThreadPoolExecutor(PARALLEL) as pool:
        futures = {
            fmt: pool.submit(_judge_file, fmt, path, golden, certificate, limits, dtypes.get(fmt, "float32"))
            for fmt, path in paths.items()
        }
        for fmt, future in futures.items():
            tell(f"run {fmt}")
            checks.append(future.result())
    return tuple(checks)


def _judge_file(
    fmt: str, path: Path, golden: Golden, certificate: Certificate, limits: Limits, dtype: str
) -> Check:
    try:
        require_runtime(runtime_of(fmt))
    except FinetDeployError as error:
        return Check(name=check_name(fmt), stage=STAGE, passed=None, message="not run", reason=str(error))
    try:
        outputs = run_isolated(path, fmt, golden.inputs)
    except FinetDeployError as error:
        return Check(name=check_name(fmt), stage=STAGE, passed=False, message=str(error))
    return judge_artifact(fmt, compare(golden.outputs, outputs), limits, certificate=certificate, dtype=dtype)


def _stated(certificate: Certificate, dtypes: Mapping[str, str]) -> Limits:
    """The limits that the export was held to: below fp32 they may have been chosen, and the certificate states them."""
    for fmt, dtype in dtypes.items():
        if dtype != "float32":
            least = _check(certificate, fmt).limits.get("median_sqnr_db")
            return Limits() if least is None else Limits().with_sqnr_db(dtype, least)
    return Limits()


def _check(certificate: Certificate, fmt: str) -> Check:
    try:
        return certificate.check(check_name(fmt))
    except KeyError as error:
        raise FinetDeployError(
            f"the certificate has no check of the .{fmt} file", do="export the bundle again"
        ) from error


def verify_bundle(bundle: Bundle | Path | str, limits: Limits | None = None) -> Certificate:
    """Check a bundle again, as it lies on disk: hashes, then every artifact in its own runtime on the golden inputs.

    limits: by default those that the export was held to. A runtime that is not installed leaves its check not run, and
    the certificate not passed. Raises like `read_bundle` when files are missing or were changed.
    """
    bundle = read_bundle(bundle.path if isinstance(bundle, Bundle) else bundle)
    stored = bundle.certificate()
    exported = Check(
        name="bundle/certificate",
        stage="bundle",
        passed=stored.passed,
        message=f"hashes are right; the certificate of the export {'passed' if stored.passed else 'did not pass'}",
    )
    paths = {fmt: bundle.artifact_path(fmt) for fmt in bundle.formats}
    dtypes = {fmt: bundle.artifact(fmt).dtype for fmt in bundle.formats}
    limits = limits or _stated(stored, dtypes)
    return Certificate(
        subject=bundle.manifest.name,
        expected=(exported.name, *map(check_name, paths)),
        checks=(exported, *judge_files(paths, bundle.golden(), stored, limits, dtypes=dtypes)),
        versions={runtime: version for runtime, version in available_runtimes().items() if version},
    )
