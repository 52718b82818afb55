"""What the app is built from: an original AAR of Maven Central is taken by a changed entry alone."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import msgspec
import pytest

import finet_deploy.app.fetch as fetching
from finet_deploy.app.libraries import libraries
from finet_deploy.app.parts import Archive
from finet_deploy.errors import FinetDeployError
from finet_deploy.files import sha256_bytes
from finet_deploy.runner.folder import cache_folder

ORIGINALS = {
    "executorch-android": ("org.pytorch:executorch-android:1.2.3:aar", "libexecutorch.so"),
    "onnxruntime-android": ("com.microsoft.onnxruntime:onnxruntime-android:1.2.3:aar", "libonnxruntime.so"),
}
ABIS = ("arm64-v8a", "x86_64")


def aar(library: str) -> bytes:
    """As Android's build makes it."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("AndroidManifest.xml", "<manifest/>")
        archive.writestr("classes.jar", b"classes")
        for abi in ABIS:
            archive.writestr(f"jni/{abi}/{library}", f"code for {abi}")
    return out.getvalue()


@pytest.mark.parametrize("name", ORIGINALS)
def test_an_original_is_fetched_with_mvn_checked_and_taken_apart(name, tmp_path, monkeypatch):
    coordinate, native = ORIGINALS[name]
    data = aar(native)
    (republished,) = [library for library in libraries("app") if library.name == name]
    assert republished.source == "npm"
    original = msgspec.structs.replace(
        republished,
        source="maven",
        coordinate=coordinate,
        sha256=sha256_bytes(data),
        archive=None,
        classes="classes.jar",
        native=(f"jni/{{abi}}/{native}",),
        licence_files=(),
    )
    asked = []

    def mvn(command, what, *, do=""):
        pom = Path(command[command.index("-f") + 1])
        asked.append(pom.read_text())
        name = re.search("<destFileName>(.*)</destFileName>", asked[-1])
        (pom.parent / name.group(1)).write_bytes(data)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(fetching, "require", lambda program: program)
    monkeypatch.setattr(fetching, "run", mvn)
    file = fetching.fetch([original], lambda text: None)[name]
    group, artifact, version, kind = coordinate.split(":")
    for element in (
        f"<groupId>{group}</groupId><artifactId>{artifact}</artifactId><version>{version}</version><type>{kind}</type>",
        f"<destFileName>{file.name}</destFileName>",
    ):
        assert element in asked[0]
    assert file.suffix == ".aar"
    archive = Archive(original, file)
    assert archive.classes() == b"classes"
    assert {abi: archive.native(abi) for abi in ABIS} == {
        abi: {native: f"code for {abi}".encode()} for abi in ABIS
    }
    wrong = msgspec.structs.replace(original, sha256="0" * 64)
    with pytest.raises(FinetDeployError, match=f"SHA-256 {original.sha256}"):
        fetching.fetch([wrong], lambda text: None)


def test_the_one_original_that_is_on_maven_central_is_read_so():
    (library,) = [library for library in libraries("app") if library.name == "pytorch_android_lite"]
    assert (library.source, library.coordinate.rsplit(":", 1)[1]) == ("maven", "aar")
    file = cache_folder() / "app" / "libraries" / library.file_name
    if not file.is_file():
        pytest.skip("not fetched: finet-deploy app build")
    archive = Archive(library, file)
    with zipfile.ZipFile(io.BytesIO(archive.classes() or b"")) as jar:
        assert "org/pytorch/LiteNativePeer.class" in jar.namelist()
    for abi in ABIS:
        assert archive.native(abi)["libpytorch_jni_lite.so"][:4] == b"\x7fELF"


def test_a_member_that_is_not_there_is_named(tmp_path):
    (library,) = [library for library in libraries("app") if library.name == "pytorch_android_lite"]
    (tmp_path / library.file_name).write_bytes(aar("other.so"))
    with pytest.raises(
        FinetDeployError, match="no jni/x86_64/libpytorch_jni_lite.so.*delete it from the cache"
    ):
        Archive(library, tmp_path / library.file_name).native("x86_64")
