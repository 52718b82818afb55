"""The app's own tests on Robolectric: Android's framework on this machine's Java, without a phone.

`python -m tests.device.app_robolectric` fetches what they run on (with mvn); the tests themselves need no network.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from finet_deploy.app.build import compile_app
from finet_deploy.app.java import BRIEF, zip_entries
from finet_deploy.app.libraries import libraries
from finet_deploy.app.parts import Archive
from finet_deploy.app.resources import aapt2_program, link_resources
from finet_deploy.app.sources import app_sources
from finet_deploy.app.tools import require, run
from finet_deploy.files import replace_directory, temporary_directory_beside
from finet_deploy.runner.folder import cache_folder

POM = app_sources() / "app" / "robolectric.pom.xml"
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
DATA = Path(__file__).resolve().parents[1] / "data"
FRAMEWORK = "android-all-instrumented-"


def folder() -> Path:
    return cache_folder() / "app" / "robolectric"


def fetch() -> Path:
    """The jars below the cache; AARs are unpacked to jars."""
    with temporary_directory_beside(folder()) as scratch:
        run(
            [require("mvn"), "-B", "-q", "-f", POM, COPY, f"-DoutputDirectory={scratch}"], "fetch Robolectric"
        )
        for aar in scratch.glob("*.aar"):
            aar.with_suffix(".jar").write_bytes(zip_entries(aar.read_bytes())["classes.jar"])
            aar.unlink()
        replace_directory(scratch, folder())
    return folder()


def run_tests(files: dict[str, Path], scratch: Path) -> subprocess.CompletedProcess[str]:
    """Compile the app and its tests in `scratch` and run them. files: the fetched libraries by name."""
    sources = app_sources()
    parts = [Archive(library, files[library.name]) for library in libraries("app")]
    platform = files[libraries("compile")[0].name]
    aapt2 = aapt2_program(Archive(libraries("aapt2")[0], files["aapt2"]), scratch)
    _, generated = link_resources(aapt2, sources / "app", platform, (1, "1"), scratch)
    jars = compile_app(sources, parts, platform, generated, scratch)
    tests = scratch / "tests"
    (tests / "com/android/tools").mkdir(parents=True)
    (tests / "com/android/tools/test_config.properties").write_text(
        f"android_resource_apk={scratch / 'resources.apk'}\n"
        f"android_merged_manifest={sources / 'app' / 'AndroidManifest.xml'}\n"
        "android_custom_package=org.finetdeploy.app\n"
    )
    libs = [jar for jar in sorted(folder().glob("*.jar")) if not jar.name.startswith(FRAMEWORK)]
    code = sorted((sources / "app/src/test/java").rglob("*.java"))
    path = os.pathsep.join(map(str, [*jars, *libs]))
    brief = [f"-J{option}" for option in BRIEF]
    command = [
        require("javac"),
        *brief,
        "-nowarn",
        "-cp",
        f"{path}{os.pathsep}{platform}",
        "-d",
        tests,
        *code,
    ]
    run(command, "compile the app's tests")
    tests_only = [
        item.relative_to(sources / "app/src/test/java") for item in code if item.stem.endswith("Test")
    ]
    names = [".".join(item.with_suffix("").parts) for item in tests_only]
    opened = [f"--add-opens=java.base/java.{name}=ALL-UNNAMED" for name in ("io", "lang", "util")]
    command = [
        "java",
        *BRIEF,
        "-Xmx2g",
        *opened,
        "-Drobolectric.offline=true",
        f"-Drobolectric.dependency.dir={folder()}",
    ]
    command += [f"-Dfinet.golden={DATA}"]
    # Robolectric puts its own framework before this one; JUnit alone needs it, to look at the classes.
    command += [
        "-cp",
        os.pathsep.join(map(str, (tests, path, platform))),
        "org.junit.runner.JUnitCore",
        *names,
    ]
    return subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=600)


if __name__ == "__main__":
    sys.stdout.write(f"{fetch()}\n")
