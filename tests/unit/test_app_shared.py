"""What the app's Java and the Python side share is the same on both sides."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

import finet_deploy
from finet_deploy.app.build import _version, app_sources
from finet_deploy.app.libraries import libraries
from finet_deploy.bench.json_schema import protocol_schema
from finet_deploy.bench.protocol import RECORD_TYPES, Job, VisitRequest
from finet_deploy.runtimes import FORMATS
from finet_deploy.runtimes.android import known_runtimes, unloadable

ROOT = Path(__file__).resolve().parents[2]
JAVA = ROOT / "android_app"
SCHEMA = JAVA / "core/src/main/resources/org/finetdeploy/core/protocol/protocol.schema.json"


def constant(path: str, name: str) -> str:
    text = (JAVA / path).read_text()
    return re.search(rf'String {name} = "([^"]*)"', text).group(1)


def test_the_apps_schema_is_that_of_the_protocol():
    """When this fails, write `protocol_schema()` into the file, and see what the Java needs."""
    assert SCHEMA.read_text() == protocol_schema()


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


def test_the_engines_tell_the_versions_that_are_pinned():
    pinned = {library.name: library.version for library in libraries("app")}
    engines = "engines/src/main/java/org/finetdeploy/engines"
    assert constant(f"{engines}/ExecuTorchEngine.java", "VERSION") == pinned["executorch-android"]
    assert constant(f"{engines}/TorchMobileEngine.java", "VERSION") == pinned["pytorch_android_lite"]
    assert pinned["onnxruntime"] == pinned["onnxruntime-android"]


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
        codes.append(_version()[0])
    assert codes == sorted(set(codes))


def test_the_manifest_opens_nothing_but_what_adb_and_the_launcher_need():
    import xml.etree.ElementTree as ElementTree

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


@pytest.mark.parametrize("library", libraries(), ids=lambda library: library.name)
def test_every_library_is_pinned_with_origin_and_licence(library):
    assert library.licence and library.sha256 != "0" * 64
    if library.source == "maven":
        assert len(library.coordinate.split(":")) == 4
        assert "SNAPSHOT" not in library.coordinate
    else:
        assert re.fullmatch(r"[\w.@/-]+@\d[\w.]*", library.coordinate)
