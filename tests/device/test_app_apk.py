"""The APK: built twice from fetched libraries, and read back by checks that find what is wrong.

The libraries are fetched beforehand (`finet-deploy app build`); without them, or a tool, the tests are skipped. The APK
that was built then, where it is of these sources, is one of the two.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import re
import shutil
import subprocess
from pathlib import Path

import msgspec
import pytest

import finet_deploy.app.build as building
from finet_deploy.app.build import build_app
from finet_deploy.app.check import Report, check_apk, dex_classes
from finet_deploy.app.fetch import fetch
from finet_deploy.app.java import zip_entries
from finet_deploy.app.libraries import libraries
from finet_deploy.app.manifest import MANIFEST_FILE, AppManifest, read_manifest
from finet_deploy.app.pack import PAGE, Entry, pack, stored_offsets
from finet_deploy.app.resources import link_resources
from finet_deploy.app.runtimes import read_runtimes
from finet_deploy.app.sign import debug_key, sign
from finet_deploy.app.sources import ABIS, app_key, cached_app, require_sources
from finet_deploy.app.standin import stand_in_folder
from finet_deploy.app.tools import DEBIAN
from finet_deploy.bench.records import VisitResult
from finet_deploy.bench.validity import visit_problem
from finet_deploy.devices.app.pages import runtime_alignments
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.files import sha256_file
from finet_deploy.runner.folder import cache_folder
from finet_deploy.runtimes.android import ANDROID_FILE
from tests.device.runner_native import requests_for, run_native, shared_tiny

CHANGED_ABI = "x86_64"  # of the APKs that are changed and checked again: an ABI's libraries have 100 MB
STAND_IN: Path | None = None
with contextlib.suppress(FinetDeployError):  # of the user's cache; the builds here have one of their own
    STAND_IN = stand_in_folder()


@pytest.fixture(scope="module")
def files():
    for tool in DEBIAN:
        if shutil.which(tool) is None:
            pytest.skip(f"{tool} is not installed (apt-get install {DEBIAN[tool]})")
    folder = cache_folder() / "app" / "libraries"
    absent = [library.name for library in libraries() if not (folder / library.file_name).is_file()]
    if absent:
        pytest.skip(f"not fetched: {', '.join(absent)} (finet-deploy app build)")
    return fetch(libraries(), print)


class Built:
    """A build of this session: its folder, the copy that was asked for, and what its check was given."""

    def __init__(self, folder: Path, copy: Path, arguments: dict) -> None:
        self.folder, self.copy, self.manifest = folder, copy, read_manifest(folder)
        self.apk, self.arguments = folder / self.manifest.apk, arguments

    def check(self, scratch: Path, entries: dict[str, Entry], **changes):
        """The problems of another APK of these entries, signed."""
        (scratch / "unsigned.apk").write_bytes(pack(entries))
        sign(scratch / "unsigned.apk", scratch / "changed.apk", debug_key())
        changes = {"abis": (CHANGED_ABI,), **changes}
        return check_apk(scratch / "changed.apk", **{**self.arguments, **changes}).problems

    def entries(self, *, native: bool = True) -> dict[str, Entry]:
        """native: with the libraries of one ABI, which take the most time."""
        data = self.apk.read_bytes()
        stored = stored_offsets(data)
        return {
            name: Entry(content, stored=name in stored)
            for name, content in zip_entries(data).items()
            if not name.startswith("lib/") or (native and name.startswith(f"lib/{CHANGED_ABI}/"))
        }


@pytest.fixture(scope="module")
def earlier() -> AppManifest | None:
    """Of the APK that was built from these sources before the tests, if there is one; of the user's cache."""
    folder = cached_app("debug", ABIS, app_key(require_sources(), ABIS))
    return read_manifest(folder) if (folder / MANIFEST_FILE).is_file() else None


@pytest.fixture(scope="module")  # the environment is changed for this file alone
def built(files, earlier, tmp_path_factory):
    seen = {}

    def remember(apk, **arguments):
        kept = tmp_path_factory.mktemp("tools") / "aapt2"
        shutil.copy(arguments["aapt2"], kept)
        seen.update({**arguments, "aapt2": kept})
        return check_apk(apk, **arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(_cache_with(files, tmp_path_factory.mktemp("cache"))))
        patch.setattr(building, "check_apk", remember)
        copy = tmp_path_factory.mktemp("copy") / "copy.apk"
        yield Built(build_app(out=copy, progress=lambda step: None), copy, seen)


def _cache_with(files, folder: Path) -> Path:
    """A cache of its own that holds the fetched libraries, and an APK of older sources."""
    app = folder / "finet-deploy" / "app"
    (app / f"debug-{'-'.join(ABIS)}.0123456789abcdef").mkdir(parents=True)
    (app / "libraries").symlink_to(next(iter(files.values())).parent)
    return folder


def test_two_builds_give_the_same_bytes_before_they_are_signed(built, earlier, tmp_path, monkeypatch):
    if earlier is None:  # nobody ran `make apk`
        monkeypatch.setenv("XDG_CACHE_HOME", str(_cache_with(fetch(libraries(), print), tmp_path)))
        monkeypatch.setattr(building, "check_apk", lambda apk, **arguments: Report((), ()))
        earlier = read_manifest(build_app(progress=lambda step: None))
    assert earlier.unsigned_sha256 == built.manifest.unsigned_sha256
    assert earlier.sha256 != built.manifest.sha256, "each is signed with the key of its own cache"


def test_the_build_is_kept_copied_and_takes_the_place_of_an_older_one(built):
    assert sha256_file(built.copy) == sha256_file(built.apk) == built.manifest.sha256
    assert built.manifest.abis == ABIS
    found = [path.name for path in built.folder.parent.glob(f"debug-{'-'.join(ABIS)}.*")]
    assert found == [built.folder.name]
    assert set(built.manifest.runtimes) == {"executorch", "onnxruntime", "torch_mobile"}


def test_a_build_that_is_there_is_done_again_only_when_that_is_asked_for(built, monkeypatch):
    def build(self, folder):
        raise FinetDeployError("it builds")

    monkeypatch.setattr(building._Build, "run", build)
    said: list[str] = []
    assert build_app(progress=said.append) == built.folder
    assert said == [f"{built.folder}: up to date"]
    with pytest.raises(FinetDeployError, match="it builds"):
        build_app(force=True, progress=said.append)
    assert built.apk.is_file(), "a build that fails leaves the old one"


def test_libraries_that_do_not_load_on_16_kib_pages_are_told(built):
    assert any("libpytorch_jni_lite.so" in note for note in built.manifest.notes)
    assert not any("libonnxruntime.so" in note or "libexecutorch.so" in note for note in built.manifest.notes)


def test_the_alignment_of_each_runtime_is_read_as_the_build_reads_it(built):
    """Two readers of ELF: what `bench` asks before it measures is what the build's check told."""
    found = runtime_alignments(built.apk)
    assert set(found) == {"executorch", "onnxruntime", "torch_mobile"}
    short = {name for name, alignment in found.items() if alignment < PAGE}
    assert short == {"torch_mobile"} and found["torch_mobile"] == 4096


def test_the_licences_of_all_that_is_inside_are_inside(built):
    entries = zip_entries(built.apk.read_bytes())
    notice = entries["assets/licenses/NOTICE.txt"].decode()
    for library in libraries("app"):
        assert f"{library.name} {library.version}" in notice and library.licence in notice
    assert b"Apache License" in entries["assets/licenses/apache-2.0.txt"]
    assert b"MIT License" in entries["assets/licenses/onnxruntime-android-LICENSE.txt"]
    assert len(entries["assets/licenses/onnxruntime-android-ThirdPartyNotices.txt"]) > 100_000
    ours = entries["assets/licenses/executorch.txt"].decode()
    package = importlib.metadata.distribution("executorch")
    (theirs,) = [path for path in package.files or () if path.name == "LICENSE"]
    assert ours == theirs.read_text(), "the third party's build has none: it is that of the project"
    for name in ("executorch", "pytorch"):
        assert b"Redistribution" in entries[f"assets/licenses/{name}.txt"]


def test_the_telemetry_of_onnx_runtime_is_not_in_the_app(built):
    entries = zip_entries(built.apk.read_bytes())
    names = dex_classes({name: data for name, data in entries.items() if name.endswith(".dex")})
    assert "ai/onnxruntime/OrtSession" in names
    assert not any("telemetry" in name.lower() for name in names)


def test_what_was_dexed_still_does_a_visit(built, tmp_path, tmp_path_factory):
    """The dex files translated back by another program, verified by this machine's Java, doing a visit: shrinker,
    rewritten lambdas, opened members and dexer together have not changed what the code does."""
    if shutil.which("enjarify") is None:
        pytest.skip("enjarify is not installed (apt-get install enjarify)")
    if STAND_IN is None:
        pytest.skip("the stand-in is not built (finet-deploy app build --stand-in)")
    stand_in = STAND_IN
    entries = zip_entries(built.apk.read_bytes())
    (tmp_path / "classes.dex").write_bytes(entries["classes.dex"])
    command = ["enjarify", "-o", "code.jar", "classes.dex"]
    environment = {"PATH": "/usr/bin:/bin"}  # it belongs to the system's Python
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    # It does not know `invoke-polymorphic` (half precision, which no visit uses): that class comes from its jar.
    lost = re.findall(r"^(\S+\.class) Traceback", done.stdout, re.MULTILINE)
    assert "classes translated successfully" in done.stdout
    assert set(lost) <= {"ai/onnxruntime/platform/Fp16Conversions.class"}
    main = {
        name: data
        for name, data in zip_entries((stand_in / "app.jar").read_bytes()).items()
        if "/jvm/" in name
    }
    schema = {name: data for name, data in entries.items() if name.endswith("protocol.schema.json")}
    assert main and schema
    (tmp_path / "main.jar").write_bytes(
        pack({name: Entry(data) for name, data in {**main, **schema}.items()})
    )
    (tmp_path / "run.sh").write_text(
        f"export ORT_DISABLE_TELEMETRY=1\nexec java -Xverify:all -Donnxruntime.native.path={stand_in}/native "
        f'-cp {tmp_path}/main.jar:{tmp_path}/code.jar:{stand_in}/onnxruntime.jar org.finetdeploy.jvm.Main "$@"\n'
    )
    request = requests_for(shared_tiny(tmp_path_factory))["onnxruntime"]
    visit = run_native(request, tmp_path / "visit", command=("/bin/sh", str(tmp_path / "run.sh")))
    assert visit.status == 0, visit.stderr
    assert visit_problem(VisitResult(0, tuple(visit.records)), request.row) is None


def test_an_apk_that_was_changed_is_not_verified(built, tmp_path):
    data = bytearray(built.apk.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "changed.apk").write_bytes(data)
    with pytest.raises(FinetDeployError, match="cannot verify the signature"):
        check_apk(tmp_path / "changed.apk", **built.arguments)


def test_an_absent_library_is_found_by_its_symbols_and_by_the_methods_that_it_served(built, tmp_path):
    entries = built.entries()
    del entries["lib/x86_64/libfbjni.so"]
    problems = built.check(tmp_path, entries)
    assert "x86_64: libexecutorch.so needs libfbjni.so" in problems
    assert any("needs the symbol _ZN8facebook3jni" in problem for problem in problems)


def test_a_newer_fbjni_that_lost_a_symbol_is_found(built, tmp_path):
    """As 0.8.1 did: the linker of a phone would refuse the library with the first model."""
    entries = built.entries()
    data = entries["lib/x86_64/libfbjni.so"].data
    lost = b"_ZN8facebook3jni12jtype_traitsIP11_jlongArrayE11kDescriptorE"
    assert lost in data
    entries["lib/x86_64/libfbjni.so"] = Entry(data.replace(lost, lost[:-1] + b"X"), stored=True)
    assert any(lost.decode() in problem for problem in built.check(tmp_path, entries))


def test_compressed_or_misplaced_libraries_are_found(built, tmp_path, monkeypatch):
    entries = built.entries()
    entries["lib/x86_64/libfbjni.so"] = Entry(entries["lib/x86_64/libfbjni.so"].data)
    monkeypatch.setattr(Entry, "alignment", lambda self, name: 4096 if name.endswith(".so") else 4)
    problems = built.check(tmp_path, entries)
    assert "lib/x86_64/libfbjni.so is compressed" in problems
    assert any("does not start on a multiple of 16384 bytes" in problem for problem in problems)


def test_classes_that_the_manifest_and_the_libraries_name_must_be_in_the_dex_files(built, tmp_path):
    from finet_deploy.app.java import dex

    classes = built.arguments["classes"]
    fewer = {
        name: data
        for name, data in classes.items()
        if "VisitService" not in name and "/LlmModule" not in name
    }
    files = fetch(libraries(), print)
    entries = built.entries()
    entries["classes.dex"] = Entry(
        dex(fewer, files[libraries("compile")[0].name], files["dalvik-dx"], tmp_path)["classes.dex"]
    )
    problems = built.check(tmp_path, entries, classes=fewer)
    assert any("names org.finetdeploy.app.VisitService, which is in no dex file" in item for item in problems)
    assert any(
        "looks for the class org/pytorch/executorch/extension/llm/LlmModule" in item for item in problems
    )
    lean = {name: entry for name, entry in entries.items() if not name.startswith("lib/")}
    assert any("was dexed and is in no dex file" in item for item in built.check(tmp_path, lean))


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        (
            "<application",
            '<uses-permission android:name="android.permission.INTERNET"/><application',
            "INTERNET",
        ),
        ('android:allowBackup="false"', 'android:allowBackup="true"', "may be backed up"),
        ('android:allowBackup="false"', "", "does not forbid backups"),
        (
            "</application>",
            '<provider android:name="ai.onnxruntime.TelemetryInitializer" android:authorities="a"/></application>',
            "a component of a library is in the manifest",
        ),
        ('package="org.finetdeploy.app"', 'package="org.other"', "no package: name='org.finetdeploy.app'"),
    ],
)
def test_a_manifest_that_promises_too_much_is_found(built, files, tmp_path, old, new, found):
    app = tmp_path / "app"
    shutil.copytree(require_sources() / "app", app)
    text = (app / "AndroidManifest.xml").read_text()
    assert old in text
    (app / "AndroidManifest.xml").write_text(text.replace(old, new))
    framework = files[libraries("compile")[0].name]
    resources, _ = link_resources(built.arguments["aapt2"], app, framework, (1, "1"), tmp_path)
    entries = built.entries(native=False)
    entries |= {name: Entry(data, stored=name == "resources.arsc") for name, data in resources.items()}
    assert any(found in problem for problem in built.check(tmp_path, entries))


def test_what_the_runtimes_load_is_what_their_libraries_say(files):
    kept = msgspec.json.decode(ANDROID_FILE.read_bytes())
    assert kept == msgspec.json.decode(msgspec.json.encode(read_runtimes(files)))


def test_an_unknown_abi_is_refused():
    with pytest.raises(UsageError, match="unknown ABI mips"):
        build_app(abis=("mips",))


def test_a_download_that_is_not_the_pinned_file_is_refused(tmp_path, monkeypatch):
    import finet_deploy.app.fetch as fetching

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    library = libraries("dx")[0]
    monkeypatch.setattr(
        fetching,
        "_fetch_maven",
        lambda wanted, folder, progress: (folder / library.file_name).write_bytes(b"evil"),
    )
    with pytest.raises(FinetDeployError, match="not the file that this build was checked with"):
        fetch([library], print)
    assert not (cache_folder() / "app" / "libraries" / library.file_name).exists()
