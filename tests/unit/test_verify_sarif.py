"""SARIF: what the standard's schema demands, one result for each failure, places and fingerprints that stay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from finet_deploy.verify import Certificate, Check
from finet_deploy.verify.sarif import RULES, Certified, repository_root, sarif_log

Uri = Annotated[str, Meta(pattern=r"^[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+$")]


class Strict(msgspec.Struct, forbid_unknown_fields=True):
    """The parts of sarif-schema-2.1.0.json that we write; there too nothing else is allowed in them."""


class Text(Strict, kw_only=True):
    text: Annotated[str, Meta(min_length=1)]
    markdown: str | msgspec.UnsetType = msgspec.UNSET


class Configuration(Strict, kw_only=True):
    level: Literal["none", "note", "warning", "error"]


class Rule(Strict, kw_only=True):
    id: str
    name: str
    shortDescription: Text
    fullDescription: Text
    help: Text
    defaultConfiguration: Configuration
    properties: dict[str, Any]


class Driver(Strict, kw_only=True):
    name: str
    semanticVersion: str
    rules: list[Rule]


class Tool(Strict, kw_only=True):
    driver: Driver


class ArtifactLocation(Strict, kw_only=True):
    uri: Uri
    uriBaseId: str | msgspec.UnsetType = msgspec.UNSET


class Region(Strict, kw_only=True):
    startLine: Annotated[int, Meta(ge=1)]


class PhysicalLocation(Strict, kw_only=True):
    artifactLocation: ArtifactLocation
    region: Region | msgspec.UnsetType = msgspec.UNSET


class LogicalLocation(Strict, kw_only=True):
    name: str
    fullyQualifiedName: str


class Location(Strict, kw_only=True):
    physicalLocation: PhysicalLocation
    id: Annotated[int, Meta(ge=-1)] = -1
    message: Text | msgspec.UnsetType = msgspec.UNSET
    logicalLocations: list[LogicalLocation] = []


class Result(Strict, kw_only=True):
    ruleId: str
    ruleIndex: Annotated[int, Meta(ge=-1)]
    level: Literal["none", "note", "warning", "error"]
    message: Text
    locations: list[Location] = []
    relatedLocations: list[Location] = []
    partialFingerprints: dict[str, str]
    properties: dict[str, Any]


class Invocation(Strict, kw_only=True):
    executionSuccessful: bool


class Run(Strict, kw_only=True):
    tool: Tool
    invocations: list[Invocation]
    columnKind: Literal["utf16CodeUnits", "unicodeCodePoints"]
    results: list[Result]


class Log(Strict, kw_only=True, rename={"schema": "$schema"}):
    schema: Uri
    version: Literal["2.1.0"]
    runs: list[Run]


def check(name: str, passed: bool | None = True, **more: Any) -> Check:
    return Check(
        name=name, stage=name.partition("/")[0], passed=passed, message=more.pop("message", "why"), **more
    )


def certificate(*checks: Check, subject: str = "net", missing: tuple[str, ...] = ()) -> Certificate:
    names = tuple(item.name for item in checks)
    return Certificate(subject=subject, expected=(*names, *missing), checks=checks)


def decoded(log: dict[str, Any]) -> Run:
    (run,) = msgspec.convert(json.loads(json.dumps(log)), type=Log).runs
    return run


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    (tmp_path / ".git").mkdir()
    bundle = tmp_path / "a folder" / "ünit"
    bundle.mkdir(parents=True)
    (bundle / "manifest.json").write_text('{\n "x": 1,\n "file": "model.onnx"\n}\n')
    return tmp_path


def test_only_what_failed_or_was_not_made_is_a_result(repository: Path) -> None:
    found = certificate(
        check("hash/model.onnx"),
        check("artifact/onnx", passed=False, message="far off", figures={"max_error": 0.3}),
        check("artifact/pte", passed=None, reason="executorch is not installed"),
        check("deploy/outputs_fp64", passed=None, optional=True, reason="not asked"),
        missing=("artifact/ptl",),
    )
    manifest = repository / "a folder" / "ünit" / "manifest.json"
    run = decoded(sarif_log([Certified(found, manifest, {"artifact/onnx": "model.onnx"})], repository))
    assert [result.message.text for result in run.results] == [
        "net: artifact/onnx: far off",
        "net: artifact/pte: executorch is not installed",
        "net: artifact/ptl: this check was not made",
    ]
    for result in run.results:
        assert run.tool.driver.rules[result.ruleIndex].id == result.ruleId == "finet/artifact"
    place = run.results[0].locations[0].physicalLocation
    assert place.artifactLocation.uri == "a%20folder/%C3%BCnit/manifest.json"
    assert place.artifactLocation.uriBaseId == "%SRCROOT%"
    assert place.region == Region(startLine=3)
    assert run.results[0].relatedLocations[0].physicalLocation.artifactLocation.uri.endswith("/model.onnx")
    assert run.results[0].properties["figures"] == ["max_error = 0.3"]


def test_every_stage_of_a_certificate_has_a_rule_with_help() -> None:
    run = decoded(sarif_log([], Path("/")))
    assert {rule.id for rule in run.tool.driver.rules} == {f"finet/{stage}" for stage in RULES}
    assert all(rule.help.text and rule.shortDescription.text for rule in run.tool.driver.rules)
    assert len({rule.name for rule in run.tool.driver.rules}) == len(RULES)
    unknown = decoded(sarif_log([Certified(certificate(check("new/thing", passed=False)))], Path("/")))
    assert unknown.tool.driver.rules[unknown.results[0].ruleIndex].id == "finet/new"


def test_a_fingerprint_is_of_the_place_and_the_check_and_of_nothing_else(repository: Path) -> None:
    def prints(message: str, folder: str, *names: str) -> list[str]:
        checks = [check(name, passed=False, message=message, figures={"e": len(message)}) for name in names]
        item = Certified(certificate(*checks), repository / folder / "manifest.json")
        results = decoded(sarif_log([item], repository)).results
        return [value for result in results for value in result.partialFingerprints.values()]

    first = prints("0.3 off", "a", "artifact/onnx", "graph/onnx")
    assert len(set(first)) == 2
    assert prints("0.31 off", "a", "artifact/onnx", "graph/onnx") == first
    assert not set(prints("0.3 off", "b", "artifact/onnx", "graph/onnx")) & set(first)


def test_a_file_outside_of_the_repository_has_its_whole_uri_and_a_name_no_place(repository: Path) -> None:
    failed = certificate(check("artifact/onnx", passed=False))
    outside = decoded(sarif_log([Certified(failed, Path("/elsewhere/manifest.json"))], repository))
    location = outside.results[0].locations[0].physicalLocation.artifactLocation
    assert location.uri == "file:///elsewhere/manifest.json"
    assert location.uriBaseId is msgspec.UNSET
    assert decoded(sarif_log([Certified(failed)], repository)).results[0].locations == []


def test_the_repository_is_the_nearest_work_tree(repository: Path) -> None:
    assert repository_root(repository / "a folder" / "ünit") == repository.resolve()
    assert repository_root(Path("/")) == Path("/")


@given(st.text(), st.text(), st.text())
def test_any_text_makes_a_log_that_the_schema_allows(subject: str, message: str, folder: str) -> None:
    item = certificate(check("artifact/onnx", passed=False, message=message), subject=subject)
    path = Path("/r") / folder.replace("\0", "").replace("/", "") / "manifest.json"
    (result,) = decoded(sarif_log([Certified(item, path)], Path("/r"))).results
    assert result.message.text
