"""The app's screen, service, intents and permissions, on Robolectric."""

from __future__ import annotations

import re
import shutil

import pytest

from finet_deploy.app.libraries import libraries
from finet_deploy.runner.folder import cache_folder
from tests.device.app_robolectric import folder, run_tests


def test_the_apps_own_tests_pass(tmp_path):
    if shutil.which("javac") is None or not folder().is_dir():
        pytest.skip("no JDK, or not fetched: python -m tests.device.app_robolectric")
    files = {
        library.name: cache_folder() / "app" / "libraries" / library.file_name for library in libraries()
    }
    if not all(file.is_file() for file in files.values()):
        pytest.skip("not fetched: finet-deploy app build")
    done = run_tests(files, tmp_path)
    assert done.returncode == 0, done.stdout[-6000:]
    count = re.search(r"OK \((\d+) tests\)", done.stdout)
    assert count and int(count.group(1)) >= 24
