"""Proving a row on a phone: the golden inputs through the runner there, the outputs judged here."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec

from finet_deploy.bench.golden import GoldenFile
from finet_deploy.bench.protocol import Invalid, Row, Settings, Visit, VisitRequest
from finet_deploy.devices.equivalence import Equivalence, golden_limits, judge, read_outputs
from finet_deploy.devices.phone_files import on_phone
from finet_deploy.devices.phone_visit import Pin, VisitRunner
from finet_deploy.devices.rest import Watch
from finet_deploy.errors import FinetDeployError
from finet_deploy.files import resolve_inside

__all__ = ["prove"]

ATTEMPTS = 2  # what the phone took away, for memory or by starting anew, says nothing of the network
# One inference of each golden input: slow only where the phone is emulated.
CHECK_SETTINGS = Settings(
    preset="equivalence",
    description="The golden inputs once, before anything is timed.",
    rounds=1,
    warmup_min_runs=1,
    warmup_min_seconds=0.0,
    warmup_max_seconds=60.0,
    timed_min_runs=1,
    timed_min_seconds=0.0,
    timed_max_seconds=60.0,
    timed_max_runs=1,
    visit_timeout_seconds=900.0,
    statistic="median",
    aa_row=False,
)


def prove(visits: VisitRunner, row: Row, folder: Path, pinned: Pin) -> Equivalence:
    """Run the golden inputs of `row` on the phone and judge what comes back; its bundle is relative to `folder`.

    Raises `PhoneError` when the phone is lost. A runner that fails, and outputs that do not fit, are a verdict.
    """
    bundle = folder.resolve() / row.bundle
    limits = golden_limits(row, bundle)
    failed = Equivalence(
        artifact_sha256=row.artifact.sha256, errors={}, limits=limits, top1_agreement=None, passed=False
    )
    visit = Visit(index=0, round=0, position=0, row=row.id)
    request = VisitRequest(settings=CHECK_SETTINGS, visit=visit, row=row, artifact_path="", golden_path="")
    with tempfile.TemporaryDirectory(prefix="finet-deploy-golden-") as name:
        outputs = Path(name) / "outputs"
        for _ in range(ATTEMPTS):
            asked, called = on_phone(request, visits.folder), f"the proof of {row.label}"
            outcome = visits.run(asked, pinned, Watch(()), name=called, outputs=outputs)
            if not outcome.taken:
                break
        last = outcome.records[-1]
        if isinstance(last, Invalid):
            problem = f"{last.reason} (golden inputs, in phase {last.phase})"
            return msgspec.structs.replace(failed, problem=problem)
        try:
            given = read_outputs(outputs)
        except FinetDeployError as error:
            return msgspec.structs.replace(failed, problem=error.message)
    return judge(row, GoldenFile(resolve_inside(bundle, row.golden.file)), given, limits)
