"""What the app's Java and the Python side share is the same on both sides."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import msgspec
import pytest

import finet_deploy
from finet_deploy.app.build import app_version
from finet_deploy.app.check import FORBIDDEN
from finet_deploy.app.java import MIN_SDK
from finet_deploy.app.libraries import libraries
from finet_deploy.app.resources import TARGET_SDK
from finet_deploy.app.sources import ABIS, MODULES, app_sources
from finet_deploy.bench.protocol import RECORD_TYPES, THERMAL_STATUSES, Job, VisitRequest
from finet_deploy.devices.app.names import PACKAGE
from finet_deploy.runtimes import FORMATS
from finet_deploy.runtimes.android import known_runtimes, unloadable

ROOT = Path(__file__).resolve().parents[2]
JAVA = ROOT / "android_app"
SCHEMA = JAVA / "core/src/main/resources/org/finetdeploy/core/protocol/protocol.schema.json"


def constant(path: str, name: str) -> str:
    text = (JAVA / path).read_text()
    return re.search(rf'String {name} = "([^"]*)"', text).group(1)


def test_the_schema_knows_every_structure_and_keeps_the_order_of_the_fields():
    definitions = json.loads(SCHEMA.read_text())["$defs"]
    for kind in (Job, VisitRequest, *RECORD_TYPES):
        fields = [field.encode_name for field in msgspec.structs.fields(kind)]
        wanted = [name for name in definitions[kind.__name__]["properties"] if name != "type"]
        assert wanted == fields
        assert definitions[kind.__name__]["additionalProperties"] is False


def test_versions_are_the_same_in_java_maven_and_python():
    assert (
        constant("core/src/main/java/org/finetdeploy/core/Version.java", "TOOL") == finet_deploy.__version__
    )
    for pom in JAVA.rglob("pom.xml"):
        if "target" not in pom.parts:
            assert (
                re.search(r"<version>([^<]*)</version>", pom.read_text()).group(1) == finet_deploy.__version__
            )


def strings(path: str) -> dict[str, str]:
    return {item.get("name"): item.text for item in ElementTree.parse(JAVA / path).getroot()}


def test_the_records_tell_the_versions_that_are_pinned():
    pinned = {library.name: library.version for library in libraries("app")}
    told = strings("app/res/values/versions.xml")
    assert told["executorch_version"] == pinned["executorch-android"]
    assert told["torch_mobile_version"] == pinned["pytorch_android_lite"]
    assert pinned["onnxruntime"] == pinned["onnxruntime-android"]


def test_the_gradle_project_has_the_versions_of_the_other_builds():
    """ExecuTorch apart: this build takes a third party's library, Gradle the original of the exporter's release."""
    catalogue = (JAVA / "gradle/libs.versions.toml").read_text()
    found = dict(re.findall(r'^([\w-]+) = "([^"]*)"$', catalogue, re.MULTILINE))
    pinned = {library.name: library.version for library in libraries()}
    for name, library in {
        "onnxruntime": "onnxruntime-android",
        "pytorch-mobile": "pytorch_android_lite",
        "fbjni": "fbjni",
        "nativeloader": "nativeloader",
    }.items():
        assert found[name] == pinned[library]
    exporter = re.search(r'"executorch>=([\d.]+),', (ROOT / "pyproject.toml").read_text())[1]
    assert found["executorch"] == exporter
    assert strings("app/gradle/res/values/versions.xml")["executorch_version"] == exporter
    for pom, name in (("pom.xml", "junit"), ("app/robolectric.pom.xml", "robolectric")):
        assert f">{found[name]}</" in (JAVA / pom).read_text()


def test_the_gradle_project_makes_the_same_app_of_the_same_sources():
    text = (JAVA / "app/build.gradle").read_text()
    for line in (
        f"applicationId '{PACKAGE}'",
        f"minSdk {MIN_SDK}",
        f"targetSdk {TARGET_SDK}",
        f"versionCode {app_version()[0]}",
        f"versionName '{app_version()[1]}'",
        f"abiFilters {', '.join(map(repr, ABIS))}",
    ):
        assert f"{line}\n" in text, line
    named = set(re.findall(r"'([\w./]+/(?:java|resources)|AndroidManifest.xml|res|assets)'", text))
    assert all((JAVA / "app" / path).exists() for path in named)
    folders = {(JAVA / "app" / path).resolve() for path in named}
    assert {JAVA / name / "src/main/java" for name in MODULES} < folders
    assert JAVA / "core/src/main/resources" in folders
    overlay = (JAVA / "app/gradle/AndroidManifest.xml").read_text()
    removed = re.findall(r'name="([\w.]+)"\s+tools:node="remove"', overlay)
    assert set(FORBIDDEN) <= set(removed)


def test_thermal_states_have_the_same_names_on_both_sides():
    text = (JAVA / "app/src/main/java/org/finetdeploy/app/AndroidProbes.java").read_text()
    names = re.search(r"THERMAL_STATUSES =\s*Arrays.asList\(([^)]*)\)", text)[1]
    assert tuple(re.findall(r'"(\w+)"', names)) == THERMAL_STATUSES


def test_each_format_has_one_engine_and_known_limits():
    found = {library.format: library.runtime for library in libraries("app") if library.format}
    assert found == FORMATS
    assert set(known_runtimes()) == set(FORMATS)
    pinned = {library.name: library.version for library in libraries("app")}
    for row in known_runtimes().values():
        assert row.version == pinned[row.library]


def test_a_file_that_the_app_cannot_load_is_told_with_the_reason():
    fine = {"aten::_convolution": 13, "aten::relu_": 1, "aten::mean.dim": 3}
    assert unloadable("ptl", bytecode_version=8, operators=fine) == []
    assert unloadable("ptl", bytecode_version=3) == [
        "bytecode version 3; pytorch_android_lite 1.12.2 loads 4 to 9"
    ]
    assert "bytecode version 10" in unloadable("ptl", bytecode_version=10)[0]
    assert "operator aten::new" in unloadable("ptl", operators=["aten::new"])[0]
    assert "with 14 arguments" in unloadable("ptl", operators={"aten::_convolution": 14})[0]
    assert (
        unloadable("pte", operators=["aten::convolution.out", "dim_order_ops::_to_dim_order_copy.out"]) == []
    )
    assert "aten::nothing.out" in unloadable("pte", operators=["aten::nothing.out"])[0]
    assert unloadable("onnx", operators=["Conv"]) == []
    assert "no runtime for 'tflite'" in unloadable("tflite")[0]


def test_versions_of_the_app_are_numbers_that_grow(monkeypatch):
    import finet_deploy.app.build as build

    codes = []
    for version in ("0.1.0", "0.1.1", "0.2.0", "1.0.0", "1.10.2"):
        monkeypatch.setattr(build, "__version__", version)
        codes.append(app_version()[0])
    assert codes == sorted(set(codes))


def test_the_manifest_opens_nothing_but_what_adb_and_the_launcher_need():
    android = "{http://schemas.android.com/apk/res/android}"
    manifest = ElementTree.parse(app_sources() / "app" / "AndroidManifest.xml").getroot()
    asked = {item.get(f"{android}name") for item in manifest.iter("uses-permission")}
    assert not any("INTERNET" in name or "NETWORK" in name or "STORAGE" in name for name in asked)
    application = manifest.find("application")
    assert application.get(f"{android}allowBackup") == "false"
    for component in [
        *application.iter("activity"),
        *application.iter("service"),
        *application.iter("receiver"),
    ]:
        if component.get(f"{android}exported") != "false" and component.find("intent-filter") is None:
            assert component.get(f"{android}permission") == "android.permission.DUMP"
    for provider in application.iter("provider"):
        assert provider.get(f"{android}exported") == "false"


def test_neither_a_cloud_nor_a_new_phone_gets_the_apps_files():
    rules = ElementTree.parse(JAVA / "app/res/xml/data_extraction_rules.xml").getroot()
    for way in ("cloud-backup", "device-transfer"):
        left_out = {item.get("domain") for item in rules.find(way) if item.get("path") == "."}
        assert {"root", "external", "device_root"} <= left_out


@pytest.mark.parametrize("library", libraries(), ids=lambda library: library.name)
def test_every_library_is_pinned_with_origin_and_licence(library):
    assert library.licence and library.sha256 != "0" * 64
    if library.source == "maven":
        assert len(library.coordinate.split(":")) == 4
        assert "SNAPSHOT" not in library.coordinate
    else:
        assert re.fullmatch(r"[\w.@/-]+@\d[\w.]*", library.coordinate)
