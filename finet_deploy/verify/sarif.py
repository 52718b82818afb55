"""Certificates as SARIF 2.1.0, the form in which code hosts show what a check found beside the files of a change.

Only what failed, or was not checked though it had to be, is a result: SARIF's readers open an alert for each. A result
names the bundle's `manifest.json`, at the line that lists the file it is about: an exported file itself is binary, and
has no lines to show. Its fingerprint is made of the place and the check's name alone, so that an alert stays the same
alert when figures or messages change, and closes when the check passes.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import finet_deploy
from finet_deploy.files import read_bounded
from finet_deploy.verify.certificate import Certificate, Check
from finet_deploy.verify.summary import figure_lines

__all__ = ["RULES", "Certified", "repository_root", "sarif_log"]

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
ROOT_ID = "%SRCROOT%"
FINGERPRINT = "finetDeployCheck/v1"
MAX_TEXT_BYTES = 4 << 20

# Stage of a check -> name of the rule, what went wrong in a few words, and what to do.
RULES: dict[str, tuple[str, str, str]] = {
    "manifest": (
        "ManifestUnreadable",
        "The bundle's manifest is damaged",
        "Copy the bundle again, or export again.",
    ),
    "hash": (
        "FileChanged",
        "A file is not the one that was exported",
        "Copy the bundle again, or export again.",
    ),
    "files": ("FileUnlisted", "The bundle holds a file that its manifest does not list", "Remove it."),
    "bundle": ("BundleDamaged", "The bundle, or its certificate, is not sound", "Export the model again."),
    "certificate": (
        "CertificateUnsound",
        "The certificate does not follow from its own figures, or its limits were softened",
        "Export the model again with the limits of this repository; do not edit certificates.",
    ),
    "form": ("NotFused", "The network was exported with its normalization", "Export it with --fuse."),
    "golden": (
        "GoldenTooAlike",
        "The golden outputs hardly differ",
        "Calibrate or train the network, then export.",
    ),
    "source": (
        "NotFromCheckpoint",
        "The bundle is not made of the checkpoint that it names",
        "Export the checkpoint as it is: nothing may change its weights or statistics before the fuse.",
    ),
    "graph": (
        "OtherGraph",
        "The file's operators are not those that were exported",
        "Write the bundle with `finet-deploy export`; do not put files of other exporters into it.",
    ),
    "delegation": ("NotDelegated", "XNNPACK gets less of the file than it should", "See export's notices."),
    "artifact": (
        "OutputsDiffer",
        "The file, run by its own runtime, does not give the golden outputs",
        "The message names the worst input and, with the checkpoint, the module that departs first.",
    ),
    "preconditions": (
        "NotFusible",
        "The network cannot be judged",
        "Put it into eval mode, with statistics.",
    ),
    "conditioning": (
        "IllConditioned",
        "fp32 is not enough for the network itself",
        "Check weights and variances.",
    ),
    "algebra": (
        "FuseWrong",
        "The fused network is another function in float64",
        "Report this: a fold is wrong.",
    ),
    "deploy": (
        "DeployModelWrong",
        "The deploy model is not the fold of the network",
        "Fuse the network again.",
    ),
    "fp32": (
        "LessExact",
        "The fused network is less exact in fp32 than it may be",
        "See the first module named.",
    ),
    "normalization": (
        "NormalizationLeft",
        "Normalization is left without a reason",
        "Fuse the network again.",
    ),
    "sensitivity": (
        "CheckIsBlind",
        "The check itself would not notice a wrong fuse",
        "Calibrate or train first.",
    ),
    "passes": (
        "PassWrong",
        "A deploy pass changed the function",
        "Export with --passes none, and report this.",
    ),
    "contract": ("ContractBroken", "Fusing changed the original, or is not idempotent", "Report this."),
}
OTHER = ("CheckFailed", "A check failed", "Read the message.")


@dataclass(frozen=True)
class Certified:
    """A certificate and where it belongs: a file in the repository, and for checks of one file its name in there."""

    certificate: Certificate
    location: Path | None = None
    files: Mapping[str, str] = field(default_factory=dict)


def repository_root(start: Path) -> Path:
    """The nearest folder above that is a git work tree; `start` itself where there is none."""
    start = start.resolve()
    return next((path for path in (start, *start.parents) if (path / ".git").exists()), start)


def sarif_log(found: Iterable[Certified], root: Path) -> dict[str, Any]:
    """One SARIF log of one run, as JSON's dicts and lists. root: the folder that locations are relative to."""
    items = list(found)
    results = [
        _result(item, check, root.resolve())
        for item in items
        for check in (*item.certificate.failures, *_missing(item))
    ]
    stages = sorted({result["ruleId"].removeprefix("finet/") for result in results} | set(RULES))
    places = {stage: place for place, stage in enumerate(stages)}
    for result in results:
        result["ruleIndex"] = places[result["ruleId"].removeprefix("finet/")]
    driver = {
        "name": "finet-deploy",
        "semanticVersion": finet_deploy.__version__,
        "rules": [_rule(stage) for stage in stages],
    }
    run = {
        "tool": {"driver": driver},
        "invocations": [{"executionSuccessful": True}],
        "columnKind": "utf16CodeUnits",
        "results": results,
    }
    return {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}


def _missing(item: Certified) -> list[Check]:
    return [
        Check(name=name, stage=name.split("/")[0], passed=False, message="this check was not made")
        for name in item.certificate.missing
    ]


def _rule(stage: str) -> dict[str, Any]:
    name, short, advice = RULES.get(stage, OTHER)
    return {
        "id": f"finet/{stage}",
        "name": name,
        "shortDescription": {"text": short},
        "fullDescription": {"text": f"{short}."},
        "help": {"text": advice, "markdown": advice},
        "defaultConfiguration": {"level": "error"},
        "properties": {
            "tags": ["deployment", "correctness"],
            "problem.severity": "error",
            "precision": "very-high",
        },
    }


def _result(item: Certified, check: Check, root: Path) -> dict[str, Any]:
    subject = item.certificate.subject
    file = item.files.get(check.name)
    text = f"{subject}: {check.name}: {check.reason or check.message}"
    result: dict[str, Any] = {
        "ruleId": f"finet/{check.stage}",
        "level": "error",
        "message": {"text": _plain(text)},
        "properties": {"figures": [_plain(line) for line in figure_lines(check)]},
    }
    place = subject
    if item.location is not None:
        location = _location(item.location, root)
        place = location["artifactLocation"]["uri"]
        location["region"] = {"startLine": _line_of(item.location, file)}
        logical = {"name": check.name, "fullyQualifiedName": _plain(f"{subject}/{check.name}")}
        result["locations"] = [{"physicalLocation": location, "logicalLocations": [logical]}]
        if file is not None:
            beside = {
                "physicalLocation": _location(item.location.parent / file, root),
                "message": {"text": file},
            }
            result["relatedLocations"] = [{"id": 1, **beside}]
    digest = hashlib.sha256(f"{place}\0{check.name}".encode("utf-8", "surrogatepass")).hexdigest()
    result["partialFingerprints"] = {FINGERPRINT: digest}
    return result


def _location(path: Path, root: Path) -> dict[str, Any]:
    """Relative to the repository, with forward slashes; a file outside of it by its whole URI."""
    path = Path(os.path.abspath(path))
    real = path.parent.resolve() / path.name
    if real.is_relative_to(root):
        return {"artifactLocation": {"uri": quote(real.relative_to(root).as_posix()), "uriBaseId": ROOT_ID}}
    return {"artifactLocation": {"uri": real.as_uri()}}


def _line_of(path: Path, file: str | None) -> int:
    """The line of the manifest that names the file; 1 where it does not."""
    if file is None or not path.is_file():
        return 1
    for number, line in enumerate(read_bounded(path, MAX_TEXT_BYTES).splitlines(), 1):
        if f'"{file}"'.encode() in line:
            return number
    return 1


def _plain(text: str) -> str:
    """Without lone surrogates, which JSON in UTF-8 cannot hold."""
    return text.encode("utf-8", "replace").decode("utf-8")
