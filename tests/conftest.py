"""What holds for all tests."""

from __future__ import annotations

import gc
import logging

import pytest

from finet_deploy.__main__ import COLLECTOR, keep_memory

# As the command line does: many tests run it in their own process.
gc.set_threshold(*COLLECTOR)
keep_memory()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol() -> None:
    """pytest listens to loggers that pass nothing on, and torch writes its traces for whoever listens."""
    trace = logging.getLogger("torch.__trace")
    trace.propagate = True
    trace.handlers.clear()
