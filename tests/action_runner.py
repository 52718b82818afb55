"""A small runner of composite GitHub actions: what GitHub does with inputs, expressions, environment and bash steps.

Only what `action.yml` uses: `inputs.*`, `github.*`, `steps.*.outputs.*`, `||`, `&&`, `==`, strings and `always()`.
Steps that use another action are noted, not run.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

__all__ = ["ActionRun", "run_action"]

EXPRESSION = re.compile(r"\$\{\{(.*?)\}\}", re.DOTALL)
TOKEN = re.compile(r"\s*(\|\||&&|==|!=|\(|\)|'(?:[^']|'')*'|[A-Za-z_][\w.\-]*)")


@dataclass
class ActionRun:
    """What a run left behind. steps: name -> exit status; None for one that was not run by its `if`."""

    steps: dict[str, int | None] = field(default_factory=dict)
    used: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    outputs: dict[str, str] = field(default_factory=dict)
    summary: str = ""
    log: str = ""

    @property
    def failed(self) -> bool:
        return any(status for status in self.steps.values())


class _Expression:
    """`a || b && c == 'd'`, evaluated as GitHub does for strings: the operators give operands back."""

    def __init__(self, text: str, contexts: Mapping[str, Any], failed: bool) -> None:
        self.tokens = TOKEN.findall(text)
        assert "".join(self.tokens).replace(" ", "") == text.replace(" ", "").strip(), f"cannot read {text!r}"
        self.contexts, self.failed = contexts, failed

    def value(self) -> Any:
        found = self._either()
        assert not self.tokens
        return found

    def _either(self) -> Any:
        found = self._both()
        while self.tokens[:1] == ["||"]:
            self.tokens.pop(0)
            other = self._both()
            found = found or other
        return found

    def _both(self) -> Any:
        found = self._equal()
        while self.tokens[:1] == ["&&"]:
            self.tokens.pop(0)
            other = self._equal()
            found = found and other
        return found

    def _equal(self) -> Any:
        found = self._one()
        if self.tokens[:1] == ["=="]:
            self.tokens.pop(0)
            return found == self._one()
        return found

    def _one(self) -> Any:
        token = self.tokens.pop(0)
        if token.startswith("'"):
            return token[1:-1].replace("''", "'")
        if token in ("always", "success"):
            assert [self.tokens.pop(0), self.tokens.pop(0)] == ["(", ")"]
            return token == "always" or not self.failed
        found: Any = self.contexts
        for part in token.split("."):
            found = found.get(part, "") if isinstance(found, Mapping) else ""
        return found


def _filled(text: str, contexts: Mapping[str, Any], failed: bool) -> str:
    return EXPRESSION.sub(lambda match: str(_Expression(match[1], contexts, failed).value()), str(text))


def run_action(
    action: Path,
    workspace: Path,
    inputs: Mapping[str, str],
    *,
    scratch: Path,
    github: Mapping[str, str],
    path: str,
) -> ActionRun:
    """Run the composite action in `workspace`. path: the PATH of its steps. github: of the `github` context."""
    definition = yaml.safe_load(action.read_text())
    unknown = set(inputs) - set(definition["inputs"])
    assert not unknown, f"no such inputs: {unknown}"
    given = {name: inputs.get(name, item.get("default", "")) for name, item in definition["inputs"].items()}
    contexts: dict[str, Any] = {
        "inputs": given,
        "github": {"action_path": str(action.parent), **github},
        "steps": {},
    }
    scratch.mkdir(parents=True)
    done = ActionRun()
    for number, step in enumerate(definition["runs"]["steps"]):
        name = step.get("name", str(number))
        condition = step.get("if", "success()")
        wanted = bool(_Expression(condition, contexts, done.failed).value())
        if not wanted or (done.failed and "always()" not in condition):
            done.steps[name] = None
        elif "uses" in step:
            filled = {
                key: _filled(value, contexts, done.failed) for key, value in step.get("with", {}).items()
            }
            done.used.append((step["uses"], filled))
        else:
            outputs = _run_step(step, contexts, done, name, workspace, scratch / str(number), path)
            contexts["steps"][step.get("id", name)] = {"outputs": outputs}
    done.outputs = {
        name: _filled(item["value"], contexts, done.failed) for name, item in definition["outputs"].items()
    }
    return done


def _run_step(
    step: Mapping[str, Any],
    contexts: Mapping[str, Any],
    done: ActionRun,
    name: str,
    workspace: Path,
    scratch: Path,
    path: str,
) -> dict[str, str]:
    assert step["shell"] == "bash"
    scratch.mkdir()
    script = scratch / "script.sh"
    script.write_text(_filled(step["run"], contexts, done.failed))
    files = {key: scratch / key.lower() for key in ("GITHUB_OUTPUT", "GITHUB_STEP_SUMMARY", "GITHUB_ENV")}
    for file in files.values():
        file.touch()
    environment = {
        **{
            key: os.environ[key]
            for key in ("HOME", "LANG", "OMP_NUM_THREADS", "PYTHONPATH")
            if key in os.environ
        },
        "PATH": path,
        "CI": "true",
        "GITHUB_ACTIONS": "true",
        "GITHUB_WORKSPACE": str(workspace),
        **{key: str(file) for key, file in files.items()},
        **{key: _filled(value, contexts, done.failed) for key, value in step.get("env", {}).items()},
    }
    command = [
        "bash",
        "--noprofile",
        "--norc",
        "-eo",
        "pipefail",
        str(script),
    ]  # GitHub's own for `shell: bash`
    ended = subprocess.run(
        command, cwd=workspace, env=environment, capture_output=True, text=True, timeout=600
    )
    done.steps[name] = ended.returncode
    done.log += ended.stdout + ended.stderr
    done.summary += files["GITHUB_STEP_SUMMARY"].read_text()
    lines = [line for line in files["GITHUB_OUTPUT"].read_text().splitlines() if line]
    return dict(line.split("=", 1) for line in lines)
