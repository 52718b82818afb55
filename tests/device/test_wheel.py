"""The wheel: what is in it, and that it measures a phone from a machine with no compiler, no adb and no source tree."""

from __future__ import annotations

import calendar
import email
import hashlib
import json
import os
import shutil
import socket
import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from finet_deploy.runner.folder import source_key
from finet_deploy.runner.manifest import MANIFEST_FILE, Manifest
from finet_deploy.runner.targets import TARGETS, host_target
from tests.device.oracle import Oracle
from tests.device.phone import why_not
from tests.device.runner_native import shared_tiny
from tests.device.wheel_env import (
    ROOT,
    bare_machine,
    built_wheel,
    environment,
    masked_programs,
    packed_sources,
    why_no_environment,
    why_no_wheel,
)

TREE = [ROOT / name for name in ("finet_deploy", "android_app", "tests", "dist", ".venv")]
DATA, NATIVE = "finet_deploy/runner/data", "finet_deploy/runner/native"
APP = "finet_deploy/app/android"
needs_wheel = pytest.mark.skipif(why_no_wheel() is not None, reason=str(why_no_wheel()))
NO_ENVIRONMENT = why_no_environment() or why_not()
needs_environment = pytest.mark.skipif(NO_ENVIRONMENT is not None, reason=str(NO_ENVIRONMENT))
# The packages that measuring on a phone may import: bundles made elsewhere need neither torch nor a runtime, so of the
# extras only `phone`. (adb_shell brings cffi, cryptography, libusb1, setuptools and typing_extensions.)
LAPTOP = {"finet-deploy", "adb_shell", "click", "msgspec", "numpy", "safetensors"}
LAPTOP |= {"Jinja2", "MarkupSafe"}  # the page of a report
LAPTOP |= {"cffi", "cryptography", "libusb1", "setuptools", "typing_extensions"}
RUNTIMES = {"executorch", "onnx", "onnxruntime"}


@pytest.fixture(scope="module")
def wheel() -> Iterator[zipfile.ZipFile]:
    path = built_wheel()
    assert path is not None
    with zipfile.ZipFile(path) as archive:
        yield archive


def packed_manifest(wheel: zipfile.ZipFile, target: str) -> Manifest:
    return msgspec.json.decode(wheel.read(f"{DATA}/{target}/{MANIFEST_FILE}"), type=Manifest)


@needs_wheel
def test_the_wheel_is_the_package_of_this_tree_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    expected = {}
    for path in packed_sources():
        name = path.relative_to(ROOT).as_posix().replace("android_app/native/", f"{NATIVE}/")
        name = name.replace("android_app/", f"{APP}/")
        expected[name] = path.read_bytes()
    names = {name for name in wheel.namelist() if not name.startswith((f"{DATA}/", "finet_deploy-"))}
    assert names == set(expected)
    assert [name for name in names if wheel.read(name) != expected[name]] == []
    about = {name.partition("/")[2] for name in wheel.namelist() if name.startswith("finet_deploy-")}
    assert about == {"METADATA", "WHEEL", "RECORD", "entry_points.txt", "licenses/LICENSE"}


@needs_wheel
def test_it_says_what_it_is_and_what_it_needs(wheel: zipfile.ZipFile) -> None:
    path = built_wheel()
    assert path is not None and path.name.endswith("-py3-none-any.whl")
    about = next(name for name in wheel.namelist() if name.endswith("/METADATA")).removesuffix("METADATA")
    metadata = email.message_from_bytes(wheel.read(f"{about}METADATA"))
    assert (metadata["Name"], metadata["License-Expression"]) == ("finet-deploy", "Apache-2.0")
    assert metadata["Requires-Python"] == "<3.14,>=3.10"
    needed = metadata.get_all("Requires-Dist") or []
    assert any(line.startswith("torch<") for line in needed)
    assert any("adb-shell" in line and "extra == 'phone'" in line for line in needed)
    assert not [line for line in needed if "file:" in line or str(ROOT) in line]
    assert "finet-deploy = finet_deploy.__main__:main" in wheel.read(f"{about}entry_points.txt").decode()
    assert "Tag: py3-none-any" in wheel.read(f"{about}WHEEL").decode()


@needs_wheel
@pytest.mark.parametrize("target", TARGETS)
def test_each_runner_is_whole_and_made_from_the_sources_beside_it(
    target: str, wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    manifest = packed_manifest(wheel, target)
    assert manifest.target == target
    wheel.extractall(tmp_path, [name for name in wheel.namelist() if name.startswith(NATIVE)])
    assert manifest.key == source_key(target, tmp_path / NATIVE)
    listed = {f"{DATA}/{target}/{file.path}": file for file in manifest.files}
    found = {name for name in wheel.namelist() if name.startswith(f"{DATA}/{target}/")}
    assert found == {*listed, f"{DATA}/{target}/{MANIFEST_FILE}"}
    for name, file in listed.items():
        assert hashlib.sha256(wheel.read(name)).hexdigest() == file.sha256, name
        mode = stat.S_IMODE(wheel.getinfo(name).external_attr >> 16)
        assert mode == (0o755 if file.executable else 0o644), name


@needs_wheel
@pytest.mark.parametrize("target", TARGETS)
def test_every_packed_program_comes_with_its_licence(target: str, wheel: zipfile.ZipFile) -> None:
    manifest = packed_manifest(wheel, target)
    assert all(file.origin and file.licence for file in manifest.files)
    prefix = f"{DATA}/{target}/licenses/"
    texts = {
        name.removeprefix(prefix): wheel.read(name).decode()
        for name in wheel.namelist()
        if name.startswith(prefix)
    }
    debian = {file.origin.split()[0] for file in manifest.files if file.licence[:4] in ("LGPL", "GPL-")}
    assert len(debian) == 3  # glibc, libgcc, libstdc++
    assert {f"{package}.txt" for package in debian} <= set(texts)
    said = {
        "executorch.txt": "Meta Platforms",
        "onnxruntime-LICENSE.txt": "Microsoft Corporation",
        "nlohmann-json3-dev.txt": "Niels Lohmann",
        "LGPL-2.1.txt": "GNU LESSER GENERAL PUBLIC LICENSE",
        "GPL-3.txt": "GNU GENERAL PUBLIC LICENSE",
        "Apache-2.0.txt": "Apache License",
        "MPL-2.0.txt": "Mozilla Public License",
        "NOTICE.txt": "glibc=",
    }
    assert {name: text for name, text in said.items() if text not in texts.get(name, "")} == {}
    for package in debian - {name for name in debian if name.startswith("libc6")}:
        assert "GCC RUNTIME LIBRARY EXCEPTION" in texts[f"{package}.txt"].upper()
    parts = texts["executorch-third-party.txt"]
    linked = (
        "XNNPACK",
        "pthreadpool",
        "cpuinfo",
        "FXdiv",
        "FP16",
        "KleidiAI",
        "Eigen",
        "FlatBuffers",
        "PyTorch",
    )
    assert [name for name in linked if name not in parts] == []


@needs_wheel
def test_the_same_sources_make_the_same_bytes_in_another_folder(
    wheel: zipfile.ZipFile, tmp_path: Path
) -> None:
    tree = tmp_path / "elsewhere"
    for name in ("finet_deploy", "android_app"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "hatch_build.py", "README.md", "LICENSE", ".gitignore"):
        shutil.copyfile(ROOT / name, tree / name)
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
    ]
    written = wheel.infolist()[0].date_time
    epoch = {**os.environ, "SOURCE_DATE_EPOCH": str(calendar.timegm((*written, 0, 0, 0)))}
    subprocess.run(
        [*command, "--wheel-dir", tmp_path, tree], check=True, umask=0o077, cwd=tmp_path, env=epoch
    )
    again, first = next(tmp_path.glob("*.whl")), built_wheel()
    assert first is not None and again.name == first.name
    assert hashlib.sha256(again.read_bytes()).digest() == hashlib.sha256(first.read_bytes()).digest()


class Laptop:
    """A machine with the wheel's environment, an empty home, and nothing else that this project could use."""

    def __init__(self, folder: Path) -> None:
        path = built_wheel()
        assert path is not None
        self.bin = environment(path) / "bin"
        self.home, self.work = folder / "home", folder / "work"
        self.home.mkdir()
        self.work.mkdir()
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.adb_port = int(listener.getsockname()[1])

    def run(self, *command: object, mounts: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
        environ = {
            "PATH": f"{self.bin}:/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "ANDROID_ADB_SERVER_PORT": str(self.adb_port),
            **variables,
        }
        words = bare_machine([str(word) for word in command], hidden=TREE, mounts=mounts)
        return subprocess.run(
            words, cwd=self.work, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True
        )

    def python(self, code: str) -> Any:
        """What `code` finds out there: it prints JSON."""
        done = self.run("python", "-c", code)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    @property
    def packed(self) -> Path:
        """The runners in the installed package."""
        return next(self.bin.parent.glob("lib/python3*/site-packages")) / DATA


@pytest.fixture
def laptop(tmp_path: Path) -> Laptop:
    return Laptop(tmp_path)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made on another machine: by the environment of the tests."""
    return shared_tiny(tmp_path_factory)


PROBE = """
import importlib.util, json, os, shutil, finet_deploy
print(json.dumps({
    "package": finet_deploy.__file__,
    "programs": [name for name in %r if shutil.which(name)],
    "folders": [name for name in %r if os.path.isdir(name) and os.listdir(name)],
    "runtimes": [name for name in %r if importlib.util.find_spec(name)],
}))
"""


@needs_environment
def test_the_laptop_has_no_compiler_no_adb_no_emulator_no_runtime_no_source_tree(laptop: Laptop) -> None:
    programs = ("adb", "g++", "gcc", "cc", "aarch64-linux-gnu-g++", "qemu-aarch64", "qemu-aarch64-static")
    folders = (*map(str, TREE), "/usr/include", "/usr/aarch64-linux-gnu")
    found = laptop.python(PROBE % (programs, folders, sorted(RUNTIMES)))
    assert Path(found.pop("package")).is_relative_to(laptop.bin.parent)
    assert found == {"programs": [], "folders": [], "runtimes": []}


@needs_environment
def test_the_wheel_measures_a_phone_over_tcp(laptop: Laptop, bundle: Path) -> None:
    with Oracle("snapdragon855", mss=1448) as oracle:
        arguments = ["bench", bundle, "--device", f"tcp:{oracle.address}", "--preset", "smoke"]
        arguments += ["--threads", "1", "-o", "run"]
        done = laptop.run("finet-deploy", *arguments, PYTHONPROFILEIMPORTTIME="1")
        assert done.returncode == 0, done.stderr
        pushed = list(oracle.path("/data/local/tmp/finet-deploy").glob(f"runner-*/{MANIFEST_FILE}"))
        runner = [path.read_bytes() for path in pushed]
    assert runner == [(laptop.packed / "aarch64" / MANIFEST_FILE).read_bytes()]
    assert "emulated: these are not speeds of a real device" in done.stdout
    assert "| tiny |" in done.stdout and "ExecuTorch" in done.stdout and "ONNX Runtime" in done.stdout
    lines = [json.loads(line) for line in (laptop.work / "run/phone.jsonl").read_text().splitlines() if line]
    proofs = [line["equivalence"]["passed"] for line in lines if line.get("type") == "proof"]
    assert proofs == [True, True]
    assert not (laptop.home / ".cache/finet-deploy/runner").exists()  # nothing was built, nothing copied
    key = laptop.home / ".android/adbkey"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    with socket.socket() as client:  # no server was started
        assert client.connect_ex(("127.0.0.1", laptop.adb_port)) != 0
    imported = {
        line.rpartition("|")[2].strip().split(".")[0]
        for line in done.stderr.splitlines()
        if line.startswith("import time:")
    }
    owners = laptop.python(
        "import importlib.metadata as m, json; print(json.dumps(m.packages_distributions()))"
    )
    packages = {owner for name in imported for owner in owners.get(name, ())}
    assert {"finet-deploy", "adb_shell", "numpy"} <= packages <= LAPTOP


@needs_environment
@pytest.mark.skipif(os.uname().machine not in TARGETS, reason="no native runner for this machine")
def test_the_wheels_runner_measures_the_laptop_too_also_where_packages_may_not_be_executed(
    laptop: Laptop, bundle: Path
) -> None:
    arguments = ["bench", bundle, "--runner", "native", "--preset", "smoke", "--threads", "1"]
    done = laptop.run("finet-deploy", *arguments, "-o", "run")
    assert done.returncode == 0, done.stderr
    assert not (laptop.home / ".cache/finet-deploy/runner").exists()
    noexec = (
        f'mount --bind "{laptop.packed}" "{laptop.packed}" && mount -o remount,bind,noexec "{laptop.packed}"'
    )
    done = laptop.run("finet-deploy", *arguments, "-o", "again", mounts=noexec)
    assert done.returncode == 0, done.stderr
    copied = list((laptop.home / ".cache/finet-deploy/runner").glob(f"{host_target()}-*"))
    assert len(copied) == 1


@needs_environment
def test_a_damaged_file_of_the_installed_runner_is_named_with_what_to_do(
    laptop: Laptop, bundle: Path, tmp_path: Path
) -> None:
    damaged, target = tmp_path / "damaged", laptop.packed / "aarch64/lib/libc.so.6"
    data = bytearray(target.read_bytes())
    data[len(data) // 2] ^= 1
    damaged.write_bytes(data)
    mount = f'mount --bind "{damaged}" "{target}"'
    done = laptop.run("finet-deploy", "runner", "show", "--target", "aarch64", mounts=mount)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert str(target) in done.stderr and "was changed" in done.stderr
    assert "install finet-deploy again" in done.stderr


def test_what_is_masked_is_what_would_be_found() -> None:
    found = {path.name for path in masked_programs()}
    for name in ("adb", "g++", "aarch64-linux-gnu-g++", "qemu-aarch64"):
        path = shutil.which(name)
        assert path is None or Path(path).resolve().name in found
