"""The app after `pip install`: a package of its own carries the APK, the tool's wheel its sources."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from finet_deploy import __version__
from finet_deploy.app.find import DATA_PACKAGE, app_folder, installed_app
from finet_deploy.app.manifest import MANIFEST_FILE
from finet_deploy.app.sources import app_files, packed_sources, require_sources, stand_in_sources
from finet_deploy.devices.app.apk import find_apk
from finet_deploy.errors import FinetDeployError
from tests.device.app_build import pretend_built

ROOT = Path(__file__).resolve().parents[2]
LICENCES = {"assets/licenses/NOTICE.txt": b"who wrote what", "assets/licenses/executorch.txt": b"BSD License"}


def pip(*arguments: object, cache: Path) -> None:
    environment = {
        **os.environ,
        "XDG_CACHE_HOME": str(cache),
        "PYTHONPATH": str(ROOT),
        "PIP_CONFIG_FILE": os.devnull,
    }
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *map(str, arguments)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The data package, of a cache with an APK as the simulated phone takes it."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        pretend_built(libraries=LICENCES)
    dist = tmp_path_factory.mktemp("dist")
    package = ROOT / "android_app/package"
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", dist, package, cache=cache)
    (path,) = dist.glob("*.whl")
    return path


def test_it_is_the_apk_its_manifest_and_the_licences(wheel):
    assert wheel.name == f"finet_deploy_app-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        assert names == {
            f"{DATA_PACKAGE}/{name}"
            for name in (
                "__init__.py", "finet-bench.apk", MANIFEST_FILE, "licenses/NOTICE.txt", "licenses/executorch.txt",
            )
        }  # fmt: skip
        assert archive.read(f"{DATA_PACKAGE}/licenses/executorch.txt") == b"BSD License"


def test_installed_beside_the_tool_it_is_found_without_a_cache(wheel, tmp_path):
    pip("install", "--no-deps", "--no-index", "--target", tmp_path / "site", wheel, cache=tmp_path)
    environment = {"PYTHONPATH": f"{ROOT}:{tmp_path / 'site'}", "XDG_CACHE_HOME": str(tmp_path / "cache")}
    code = "from finet_deploy.devices.app.apk import find_apk; print(find_apk().path)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == str(tmp_path / "site" / DATA_PACKAGE / "finet-bench.apk"), done.stderr


def test_without_a_build_there_is_no_package(tmp_path):
    with pytest.raises(
        AssertionError, match="the app was not built from these sources.*finet-deploy app build"
    ):
        pip(
            "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", tmp_path, ROOT / "android_app/package",
            cache=tmp_path,
        )  # fmt: skip
    assert not list(tmp_path.glob("*.whl"))


class TestFound:
    @pytest.fixture
    def site(self, tmp_path, monkeypatch) -> Path:
        """Where the data package would be installed; and an empty cache."""
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        monkeypatch.syspath_prepend(str(tmp_path / "site"))
        package = tmp_path / "site" / DATA_PACKAGE
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise SystemExit('nothing of it is run')\n")
        return package

    def test_it_goes_before_the_cache(self, site):
        assert installed_app() is None, "a package without an APK is none"
        built, installed = pretend_built(), pretend_built(folder=site)
        assert find_apk().path == installed
        (site / MANIFEST_FILE).unlink()
        assert find_apk().path == built

    @pytest.mark.parametrize(
        ("changes", "told"),
        [
            ({"tool_version": "0.0.9"}, f"is of finet-deploy 0.0.9, this is {__version__}"),
            ({"key": "0" * 64}, "built from other sources than those that are here"),
        ],
    )
    def test_one_of_another_build_is_passed_over_or_told(self, site, changes, told):
        pretend_built(folder=site, **changes)
        with pytest.raises(FinetDeployError, match=told) as raised:
            app_folder()
        assert str(site) in str(raised.value) and "install the finet-deploy-app" in str(raised.value)
        built = pretend_built()
        assert find_apk().path == built

    def test_a_damaged_one_is_not_passed_over_in_silence(self, site):
        apk = pretend_built(folder=site)
        pretend_built()
        apk.write_bytes(apk.read_bytes() + b"x")
        with pytest.raises(FinetDeployError, match="not the one that was built"):
            find_apk()
        (site / MANIFEST_FILE).write_bytes(b"{}")
        with pytest.raises(FinetDeployError, match="no manifest of an APK.*install the finet-deploy-app"):
            find_apk()

    def test_without_any_it_is_said_how_to_get_one(self, site):
        with pytest.raises(FinetDeployError, match="neither installed nor built") as raised:
            find_apk()
        for way in ("pip install finet-deploy-app", "finet-deploy app build", "--apk"):
            assert way in str(raised.value)


def test_the_wheel_carries_what_app_and_stand_in_are_built_from_and_no_more():
    sources = require_sources()
    packed = packed_sources(sources)
    assert set(packed) == {*app_files(sources), *stand_in_sources(sources)}
    names = [path.relative_to(sources).as_posix() for path in packed]
    assert "app/AndroidManifest.xml" in names and "jvm/run.sh" in names
    assert not [
        name for name in names if "/src/test/" in name or "/target/" in name or name.startswith("native/")
    ]


def test_without_sources_the_build_says_what_to_do(monkeypatch, tmp_path):
    from finet_deploy.app import sources
    from finet_deploy.app.build import build_app

    monkeypatch.setattr(sources, "PACKED", tmp_path)
    monkeypatch.setattr(sources, "PACKAGE", tmp_path / "a" / "b")
    with pytest.raises(FinetDeployError, match="sources are not here.*install finet-deploy again"):
        build_app()
