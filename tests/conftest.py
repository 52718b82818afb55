"""What holds for all tests."""

from __future__ import annotations

import gc

from finet_deploy.__main__ import COLLECTOR

gc.set_threshold(*COLLECTOR)  # as the command line does: many tests run it in their own process
