"""Guards that stop a bad export from merging: checks of bundles, one by one, and what a change costs.

A guard needs a bundle and nothing else; with the checkpoint that the bundle was made of it proves more. It is what the
pytest plugin, `finet-deploy guard`, the GitHub action and the pre-commit hook make their checks with.
"""

from __future__ import annotations

from finet_deploy.guard.checks import GuardCheck, guard_bundle, plan_checks
from finet_deploy.guard.policy import Policy

__all__ = ["GuardCheck", "Policy", "guard_bundle", "plan_checks"]
