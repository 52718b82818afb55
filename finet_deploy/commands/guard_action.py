"""`finet-deploy guard --action`: what the GitHub action's step is, with its inputs out of the environment.

No input ever becomes a part of a script: a bundle may be called `$(rm -rf ~)`, and is then simply not there.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.files import explain_os_error

__all__ = ["OPTIONS", "arguments_of", "report_outputs"]

# Environment variable -> option, where a value is given once.
OPTIONS = {
    "FINET_BASE": "--base",
    "FINET_COST": "--cost",
    "FINET_MAX_SIZE_GROWTH": "--max-size-growth",
    "FINET_MAX_COST_GROWTH": "--max-cost-growth",
    "FINET_MIN_SQNR": "--min-sqnr",
    "FINET_MIN_DELEGATED": "--min-delegated",
    "FINET_SARIF": "--sarif",
    "GITHUB_STEP_SUMMARY": "--summary",
}
LISTS = {"FINET_CHECKPOINTS": "--checkpoint", "FINET_CORES": "--core"}  # one value a line
BUNDLES, UNFUSED, OUTPUT = "FINET_BUNDLES", "FINET_ALLOW_UNFUSED", "GITHUB_OUTPUT"


def arguments_of(environment: Mapping[str, str]) -> list[str]:
    """The command line that the action's inputs stand for. UsageError for an input that stands for none."""
    arguments = []
    for variable, option in OPTIONS.items():
        value = environment.get(variable, "").strip()
        if "\n" in value or "\0" in value:
            raise UsageError(f"{variable} has more than one line", do="give one value")
        arguments += [f"{option}={value}"] if value else []
    for variable, option in LISTS.items():
        arguments += [f"{option}={value}" for value in _lines(environment.get(variable, ""))]
    unfused = environment.get(UNFUSED, "").strip() or "false"
    if unfused not in ("true", "false"):
        raise UsageError(f"{UNFUSED}={unfused!r} is neither true nor false", do="give one of them")
    arguments += ["--allow-unfused"] if unfused == "true" else []
    bundles = _lines(environment.get(BUNDLES, ""))
    if not bundles:
        raise UsageError("no bundle is named", where=BUNDLES, do="give the action's input 'bundles'")
    return [*arguments, "--", *bundles]


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def report_outputs(passed: bool, error: FinetDeployError | None = None) -> None:
    """The step's outputs, and an error in the job's summary, where those files are."""
    sarif = os.environ.get("FINET_SARIF", "").strip().partition("\n")[0]
    _append(OUTPUT, f"passed={'true' if passed else 'false'}\nsarif={sarif}\n")
    if error is not None:
        from finet_deploy.guard.summary import plain_text

        _append("GITHUB_STEP_SUMMARY", f"## Exported bundles\n\n**failed**: {plain_text(str(error))}\n")


def _append(variable: str, text: str) -> None:
    name = os.environ.get(variable)
    if not name:
        return
    try:
        with Path(name).open("a", encoding="utf-8", errors="replace") as stream:
            stream.write(text)
    except OSError as error:
        raise explain_os_error(error, "write", Path(name)) from error
