"""`finet-deploy bench --runner app`: the suite end to end over the adb server, and calls that cannot be meant."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from finet_deploy import __version__
from finet_deploy.app.find import app_folder
from finet_deploy.app.manifest import MANIFEST_FILE
from finet_deploy.app.sources import app_sources
from finet_deploy.bench.settings import load_suite
from finet_deploy.devices.app.apk import find_apk
from finet_deploy.devices.app.names import APP_RUNTIMES, PACKAGE, SERVICE
from finet_deploy.devices.phone_log import PhoneProof, read_lines
from finet_deploy.errors import FinetDeployError
from tests.cli import FAILED, USAGE, error_line
from tests.device.app_build import pretend_built
from tests.device.app_setup import app_phone, why_no_app
from tests.device.phone.app import make_apk
from tests.device.test_bench_phone import adb_server  # noqa: F401 - a fixture
from tests.shared_bundles import table4_bundles


@pytest.fixture(scope="module")
def table4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return table4_bundles(tmp_path_factory)


@pytest.mark.timeout(1800)
@pytest.mark.skipif(why_no_app() is not None, reason=str(why_no_app()))
@pytest.mark.skipif(shutil.which("adb") is None, reason="needs adb")
@pytest.mark.usefixtures("adb_server")
def test_the_table4_suite_runs_end_to_end_in_the_app(table4, tmp_path):
    run = tmp_path / "run"
    with app_phone() as phone:
        subprocess.run(["adb", "connect", phone.address], check=True, capture_output=True)
        arguments = [
            "--suite",
            "table4",
            "--device",
            phone.address,
            "--runner",
            "app",
            "--runtime",
            "onnxruntime",
        ]
        arguments += ["--apk", str(make_apk(tmp_path / "app.apk")), "--preset", "smoke", "--threads", "1"]
        arguments += ["--bundles-dir", str(table4), "-o", str(run), "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "finet_deploy", "bench", *arguments], capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert phone.processes() == []
    result = json.loads(done.stdout)
    assert result["device"]["emulated"] is True
    found = [row for comparison in result["comparisons"] for row in comparison["rows"]]
    assert [row["row"]["label"] for row in found] == [row.label for row in load_suite("table4").rows]
    assert all(row["valid_visits"] == 1 and row["images_per_second"] for row in found)
    proofs = [line.equivalence for line in read_lines(run) if isinstance(line, PhoneProof)]
    assert len(proofs) == len(found)
    assert all(proof.passed and len(proof.errors) >= 3 for proof in proofs), proofs
    report = (run / "report.md").read_text()
    assert "Runner: app." in report
    assert "emulated: these are not speeds of a real device" in report


class TestCalls:
    def test_an_app_needs_a_phone_and_an_apk_the_app(self, capsys, tmp_path):
        apk = str(make_apk(tmp_path / "app.apk"))
        assert "name a phone" in error_line(capsys, USAGE, "bench", "x", "--runner", "app")
        assert "are for phones" in error_line(capsys, USAGE, "bench", "x", "--apk", apk)
        line = error_line(capsys, USAGE, "bench", "x", "--device", "serial-1", "--apk", apk)
        assert "--runner app" in line

    @pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + bytes(18), b"no zip at all"])
    def test_a_file_that_is_no_apk_is_refused_before_a_phone_is_bothered(self, capsys, tmp_path, content):
        path = tmp_path / "app.apk"
        path.write_bytes(content)
        arguments = ["bench", "x", "--device", "serial-1", "--runner", "app", "--apk", str(path)]
        assert "no APK" in error_line(capsys, FAILED, *arguments)
        path.unlink()
        assert "app.apk" in error_line(capsys, FAILED, *arguments)

    def test_another_apps_apk_is_refused(self, capsys, tmp_path, monkeypatch):
        monkeypatch.setattr("tests.device.phone.app.PACKAGE", "com.example.other")
        path = str(make_apk(tmp_path / "app.apk"))
        arguments = ["bench", "x", "--device", "serial-1", "--runner", "app", "--apk", path]
        assert f"another app than {PACKAGE}" in error_line(capsys, FAILED, *arguments)


class TestBuilt:
    @pytest.fixture
    def cache(self, tmp_path, monkeypatch):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        return tmp_path / "finet-deploy" / "app"

    def test_the_one_that_was_built_from_these_sources_is_taken(self, cache):
        with pytest.raises(FinetDeployError, match="finet-deploy app build"):
            app_folder()
        apk = pretend_built("debug", ("x86_64",))
        assert find_apk().path == apk, "one for a single ABI is better than none"
        apk = pretend_built("debug")
        found = find_apk()
        assert (found.path, found.version, found.runtimes) == (apk, __version__, ("onnxruntime",))
        assert find_apk(apk) == found, "named by hand it is the same"
        apk.write_bytes(apk.read_bytes() + b"x")
        assert find_apk(apk).version is None, "the manifest beside it is another one's"
        release = pretend_built("release", runtimes={})
        assert find_apk().path == release
        assert find_apk().runtimes == APP_RUNTIMES

    def test_one_that_was_changed_since_is_refused(self, cache):
        pretend_built("debug", sha256="0" * 64)
        with pytest.raises(FinetDeployError, match="not the one that was built"):
            find_apk()
        (app_folder() / MANIFEST_FILE).write_bytes(b"{}")
        with pytest.raises(FinetDeployError, match="no manifest"):
            find_apk()


def test_the_names_are_those_of_the_apps_manifest():
    sources = app_sources()
    if sources is None:
        pytest.skip("the app's sources are not here")
    manifest = (sources / "app" / "AndroidManifest.xml").read_text()
    assert f'package="{PACKAGE}"' in manifest
    assert f'android:name="{SERVICE.split("/")[1]}"' in manifest
    assert 'android:process=":visit"' in manifest
    service = (sources / "app/src/main/java/org/finetdeploy/app/VisitService.java").read_text()
    for extra in ("request", "records", "outputs"):
        assert f'= "{extra}";' in service
    assert 'TAG = "finet-bench"' in service, "what is asked of logcat"
