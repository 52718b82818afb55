"""The app's screen, service, intents and permissions, on Robolectric."""

from __future__ import annotations

import re
import shutil

import msgspec
import pytest

from finet_deploy.app.libraries import libraries
from finet_deploy.bench.protocol import Artifact, Golden, Row, Visit, VisitRequest
from finet_deploy.runner.folder import cache_folder
from tests.bench_fakes import SETTINGS
from tests.device.app_robolectric import folder, run_tests

REQUEST = VisitRequest(
    settings=SETTINGS,
    visit=Visit(index=0, round=0, position=0, row="r"),
    row=Row(
        id="r",
        label="r",
        baseline=True,
        bundle="b",
        artifact=Artifact(
            file="model.pte",
            sha256="0" * 64,
            bytes=1,
            format="pte",
            runtime="executorch",
            dtype="float32",
            normalization_ops=0,
        ),
        golden=Golden(file="g", sha256="0" * 64, timed_input="photo_0", output_limits={"photo_0": 1e-5}),
        threads=1,
        input_shape=(1, 3, 32, 32),
        fused=True,
        params=1,
        macs=1,
        certificate_passed=True,
    ),
    artifact_path="ARTIFACT",
    golden_path="GOLDEN",
)


def test_the_apps_own_tests_pass(tmp_path):
    if shutil.which("javac") is None or not folder().is_dir():
        pytest.skip("no JDK, or not fetched: python -m tests.device.app_robolectric")
    files = {
        library.name: cache_folder() / "app" / "libraries" / library.file_name for library in libraries()
    }
    if not all(file.is_file() for file in files.values()):
        pytest.skip("not fetched: finet-deploy app build")
    done = run_tests(files, REQUEST, tmp_path)
    assert done.returncode == 0, done.stdout[-6000:]
    count = re.search(r"OK \((\d+) tests\)", done.stdout)
    assert count and int(count.group(1)) >= 24
    assert msgspec.json.decode(msgspec.json.encode(REQUEST), type=VisitRequest) == REQUEST
