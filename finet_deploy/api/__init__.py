"""The commands without the shell: typed functions that print nothing, raise `FinetDeployError` and return results.

`finet_deploy.bench` and `finet_deploy.report` are from here; the command line calls them too. Nothing heavy is imported
before a function is called.
"""

from __future__ import annotations

from finet_deploy.api.bench import BenchResult, bench
from finet_deploy.api.listener import Listener, Silent
from finet_deploy.api.report import Report, report

__all__ = ["BenchResult", "Listener", "Report", "Silent", "bench", "report"]
