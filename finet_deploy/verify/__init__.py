"""Proof that two forms of a network are the same function, and that the proof itself can fail.

The comparator, the certificate and their writers need numpy only. `verify` runs networks: it, and torch with
it, load when it is first asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from finet_deploy.verify.certificate import (
    Certificate,
    Check,
    InputSummary,
    check_outputs,
    fp32_growth,
)
from finet_deploy.verify.compare import Comparison, compare
from finet_deploy.verify.junit import junit_xml
from finet_deploy.verify.limits import Limits
from finet_deploy.verify.precision import artifact_limits, judge_artifact
from finet_deploy.verify.summary import summary_lines

if TYPE_CHECKING:
    from finet_deploy.verify.certify import verify as verify

__all__ = [
    "Certificate",
    "Check",
    "Comparison",
    "InputSummary",
    "Limits",
    "artifact_limits",
    "check_outputs",
    "compare",
    "fp32_growth",
    "judge_artifact",
    "junit_xml",
    "summary_lines",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name == "verify":
        from finet_deploy.verify.certify import verify

        return verify
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
