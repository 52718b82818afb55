"""pytest plugin: `pytest --finet-bundle DIR` adds one test item for each check of a bundle.

Without the option, and without `finet_bundles` in pytest's configuration, it does nothing, and nothing of this package
is imported beyond this file. Items are named `DIR::CHECK`: `-k artifact` runs the files alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from finet_deploy.guard import GuardCheck, Policy
    from finet_deploy.verify import Check

__all__ = ["BundleCollector", "BundleItem"]

SHOWN_INPUTS = 12


class BundleCheckFailed(Exception):
    """A check did not pass. Its report has no traceback: nothing in this program's code explains it."""

    def __init__(self, check: Check) -> None:
        self.check = check
        super().__init__(check.message)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("finet-deploy", "exported bundles")
    group.addoption(
        "--finet-bundle",
        action="append",
        default=[],
        metavar="DIR",
        help="Check this bundle (may be repeated).",
    )
    group.addoption(
        "--finet-checkpoint",
        action="append",
        default=[],
        metavar="FILE",
        help="Bundles must be made of this checkpoint (may be repeated).",
    )
    group.addoption(
        "--finet-allow-unfused",
        action="store_true",
        default=None,
        help="Accept bundles exported with --no-fuse.",
    )
    group.addoption(
        "--finet-min-sqnr",
        type=float,
        metavar="DB",
        help="Least SQNR of int8 and fp16 files (default 20 and 40 dB).",
    )
    parser.addini(
        "finet_bundles", "Bundles to check: folders or patterns below the root folder.", "linelist", []
    )
    parser.addini("finet_checkpoints", "Checkpoints that bundles must be made of.", "linelist", [])
    parser.addini("finet_allow_unfused", "Accept bundles exported with --no-fuse.", "bool", False)


def pytest_configure(config: pytest.Config) -> None:
    if _wanted(config):
        _folders(config)  # a wrong call ends here, before anything is collected
        _policy(config)


@pytest.hookimpl(tryfirst=True)  # before -k and -m choose among the items
def pytest_collection_modifyitems(
    session: pytest.Session, config: pytest.Config, items: list[pytest.Item]
) -> None:
    if not _wanted(config):
        return
    policy = _policy(config)
    for name, folder in _folders(config).items():
        collector = BundleCollector.from_parent(session, name=name, path=folder, nodeid=name, policy=policy)
        items.extend(session.genitems(collector))


def _wanted(config: pytest.Config) -> bool:
    return bool(config.getoption("--finet-bundle") or config.getini("finet_bundles"))


def _folders(config: pytest.Config) -> dict[str, Path]:
    """Name of an item's parent -> folder. Options are relative to where pytest was called, the rest to its root."""
    found: dict[str, Path] = {}
    given = [config.invocation_params.dir / text for text in config.getoption("--finet-bundle")]
    for pattern in config.getini("finet_bundles"):
        matches = sorted(path for path in config.rootpath.glob(pattern) if path.is_dir())
        if not matches:
            raise pytest.UsageError(f"finet_bundles: nothing matches {pattern!r} below {config.rootpath}")
        given += matches
    for path in given:
        folder = Path(os.path.abspath(path))
        if not folder.is_dir():
            raise pytest.UsageError(f"--finet-bundle: no such folder: {folder}")
        if not (folder / "manifest.json").is_file():
            raise pytest.UsageError(f"--finet-bundle: not a bundle, it has no manifest.json: {folder}")
        inside = folder.is_relative_to(config.rootpath)
        found.setdefault((folder.relative_to(config.rootpath) if inside else folder).as_posix(), folder)
    return found


def _policy(config: pytest.Config) -> Policy:
    from finet_deploy.errors import FinetDeployError
    from finet_deploy.guard import Policy

    checkpoints = [config.invocation_params.dir / text for text in config.getoption("--finet-checkpoint")]
    checkpoints += [config.rootpath / text for text in config.getini("finet_checkpoints")]
    unfused = config.getoption("--finet-allow-unfused")
    try:
        return Policy(
            allow_unfused=config.getini("finet_allow_unfused") if unfused is None else unfused,
            min_sqnr_db=config.getoption("--finet-min-sqnr"),
            checkpoints=tuple(checkpoints),
        )
    except FinetDeployError as error:
        raise pytest.UsageError(str(error)) from error


class BundleCollector(pytest.Collector):
    """A bundle: its children are its checks."""

    def __init__(self, *, policy: Policy, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.policy = policy

    def collect(self) -> Iterator[BundleItem]:
        from finet_deploy.guard import plan_checks

        for check in plan_checks(self.path, self.policy):
            yield BundleItem.from_parent(self, name=check.name, check=check)


class BundleItem(pytest.Item):
    """One check of a bundle."""

    def __init__(self, *, check: GuardCheck, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.check = check

    def runtest(self) -> None:
        done = self.check.run()
        for name, value in done.figures.items():
            if isinstance(value, (int, float, str)):
                self.user_properties.append((name, value))
        if not done.acceptable:
            raise BundleCheckFailed(done)
        if done.passed is None:
            pytest.skip(done.reason or done.message)

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if not isinstance(excinfo.value, BundleCheckFailed):
            return super().repr_failure(excinfo, style)
        from finet_deploy.verify.summary import figure_lines

        check = excinfo.value.check
        lines = [
            f"{self.parent.name if self.parent else ''}: {self.check.file}: {check.reason or check.message}"
        ]
        figures = figure_lines(check)
        lines += [f"  {line}" for line in figures[:SHOWN_INPUTS]]
        lines += [f"  and {len(figures) - SHOWN_INPUTS} lines more"] if len(figures) > SHOWN_INPUTS else []
        return "\n".join(lines)

    def reportinfo(self) -> tuple[Path, None, str]:
        return self.path / self.check.file, None, f"{self.parent.name if self.parent else ''}::{self.name}"
