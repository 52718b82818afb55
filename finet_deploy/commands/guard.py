"""`finet-deploy guard`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from finet_deploy.commands.console import Console, output_options
from finet_deploy.errors import FinetDeployError, UsageError

if TYPE_CHECKING:
    from finet_deploy.guard import Policy
    from finet_deploy.guard.growth import Growth, GrowthLimits
    from finet_deploy.verify import Certificate

EPILOG = """\b
Examples:
  finet-deploy guard bundles/mine --checkpoint trained.safetensors
  finet-deploy guard 'bundles/*' --base main --summary summary.md --sarif guard.sarif
  finet-deploy guard --quick --files bundles/mine/model.onnx
"""
MAX_BUNDLES = 200


@click.command("guard", epilog=EPILOG)
@click.argument("bundles", nargs=-1, metavar="BUNDLE|PATTERN...")
@click.option("--action", is_flag=True, help="Take everything from the environment that action.yml sets.")
@click.option(
    "--files",
    "as_files",
    is_flag=True,
    help="The arguments are files; the bundles that they lie in are checked.",
)
@click.option("--quick", is_flag=True, help="Hashes and certificates only: nothing is run.")
@click.option(
    "--checkpoint", "checkpoints", multiple=True, type=click.Path(path_type=Path), metavar="FILE",
    help="Bundles must be made of this checkpoint; may be given more than once.",
)  # fmt: skip
@click.option("--allow-unfused", is_flag=True, help="Accept bundles exported with --no-fuse.")
@click.option(
    "--min-sqnr", type=click.FloatRange(0, min_open=True), metavar="DB",
    help="Least SQNR of int8 and fp16 files (default 20 and 40 dB), whatever they were exported with.",
)  # fmt: skip
@click.option(
    "--min-delegated", type=click.FloatRange(0, 100), default=0.0, metavar="PERCENT",
    help="Least share of a .pte file's operators inside of delegates.",
)  # fmt: skip
@click.option("--base", metavar="COMMIT", help="Branch or commit to compare size and cost with.")
@click.option(
    "--cost", type=click.Choice(["auto", "on", "off"]), default="auto", show_default=True,
    help="ARM instructions beside the base's, emulated; auto: where the tools are installed.",
)  # fmt: skip
@click.option("--core", "cores", multiple=True, default=("cortex-a76",), show_default=True, metavar="NAME")
@click.option(
    "--max-size-growth", type=click.FloatRange(0), default=1.0, show_default=True, metavar="PERCENT",
    help="Of a file, over the base.",
)  # fmt: skip
@click.option(
    "--max-cost-growth", type=click.FloatRange(0), default=1.0, show_default=True, metavar="PERCENT",
    help="Of a file's instructions, over the base.",
)  # fmt: skip
@click.option("--summary", type=click.Path(path_type=Path), help="Append the result as Markdown.")
@click.option("--sarif", type=click.Path(path_type=Path), help="Write what failed as SARIF 2.1.0.")
@output_options
def command(
    bundles: tuple[str, ...],
    action: bool,
    as_files: bool,
    quick: bool,
    checkpoints: tuple[Path, ...],
    allow_unfused: bool,
    min_sqnr: float | None,
    min_delegated: float,
    base: str | None,
    cost: str,
    cores: tuple[str, ...],
    max_size_growth: float,
    max_cost_growth: float,
    summary: Path | None,
    sarif: Path | None,
    console: Console,
) -> int:
    """Check bundles as a repository's guard: exit 1 when one of them must not be merged.

    Each file's hash, the certificate's own figures, the operators in each file, and each file's outputs in its own
    runtime; with --checkpoint that all of it comes from there, unchanged; with --base that nothing grew.
    """
    from finet_deploy.guard import Policy
    from finet_deploy.guard.growth import GrowthLimits

    if action:
        return _act(bundles, console)
    if not bundles:
        raise UsageError("no bundle is named", do="give folders, or patterns such as 'bundles/*'")
    policy = Policy(
        allow_unfused=allow_unfused,
        min_sqnr_db=min_sqnr,
        min_delegated_share=min_delegated / 100.0,
        checkpoints=checkpoints,
        quick=quick,
    )
    limits = GrowthLimits(bytes_percent=max_size_growth, instructions_percent=max_cost_growth)
    if quick and base is not None:
        raise UsageError("--base has no meaning with --quick", do="leave one of them out")
    folders = _of_files(bundles) if as_files else _folders(bundles)
    found = _check(folders, policy, console)
    growth: list[Growth] = []
    notes: list[str] = []
    if base is not None:
        growth, notes = _growth(folders, found, base, limits, cost, cores, console)
    _write(folders, found, growth, notes, summary, sarif)
    return _tell(folders, found, growth, notes, console)


def _act(bundles: Sequence[str], console: Console) -> int:
    """The same with the action's inputs; its outputs are written whatever comes."""
    import os

    from finet_deploy.commands.guard_action import arguments_of, report_outputs

    if bundles:
        raise UsageError("--action takes its bundles from the environment", do="leave the arguments out")
    try:
        arguments = arguments_of(os.environ)
        status = command.main(
            [*console.as_options(), *arguments], prog_name="finet-deploy guard", standalone_mode=False
        )
    except click.ClickException as error:
        wrong = UsageError(error.format_message(), where="action", do="check the action's inputs")
        report_outputs(False, wrong)
        raise wrong from error
    except FinetDeployError as error:
        report_outputs(False, error)
        raise
    report_outputs(status == 0)
    return int(status)


def _folders(patterns: Sequence[str]) -> list[Path]:
    """The bundles that are named; patterns are matched here, because not every caller has a shell."""
    found: dict[Path, None] = {}
    for text in patterns:
        if Path(text).exists():
            found[Path(text)] = None
            continue
        matches = sorted(path for path in _glob(text) if (path / "manifest.json").is_file())
        if not matches:
            raise UsageError("no bundle is there", where=text, do="check the path or the pattern")
        found |= dict.fromkeys(matches)
    return _not_too_many(found)


def _glob(pattern: str) -> list[Path]:
    import glob

    return [Path(item) for item in glob.glob(pattern, recursive=True)]


def _of_files(files: Sequence[str]) -> list[Path]:
    """The bundles that these files lie in. A file in no bundle is a wrong call."""
    found: dict[Path, None] = {}
    for text in files:
        path = Path(text)
        folder = next((item for item in (path, *path.parents) if (item / "manifest.json").is_file()), None)
        if folder is None:
            raise UsageError("this file is in no bundle", where=text, do="narrow the pattern of files down")
        found[folder] = None
    return _not_too_many(found)


def _not_too_many(found: dict[Path, None]) -> list[Path]:
    if len(found) > MAX_BUNDLES:
        raise UsageError(f"{len(found)} bundles, more than {MAX_BUNDLES}", do="check them in several calls")
    return list(found)


def _check(folders: Sequence[Path], policy: Policy, console: Console) -> list[Certificate]:
    from finet_deploy.guard import guard_bundle, plan_checks

    with console.progress("check", total=sum(len(plan_checks(path, policy)) for path in folders)) as step:
        return [guard_bundle(path, policy, step) for path in folders]


def _growth(
    folders: Sequence[Path],
    found: Sequence[Certificate],
    base: str,
    limits: GrowthLimits,
    cost: str,
    cores: Sequence[str],
    console: Console,
) -> tuple[list[Growth], list[str]]:
    """Rows of every sound bundle, and notes on what could not be compared."""
    import tempfile

    from finet_deploy.guard.base import bundle_at, resolve_commit
    from finet_deploy.guard.growth import file_growth, instruction_growth
    from finet_deploy.verify.sarif import repository_root

    root = repository_root(Path.cwd())
    commit = resolve_commit(root, base)
    rows: list[Growth] = []
    notes = []
    with tempfile.TemporaryDirectory(prefix="finet-deploy-base-") as scratch:
        for number, (folder, certificate) in enumerate(zip(folders, found)):
            name = _name(folder, root)
            if any(check.stage in ("manifest", "hash") for check in certificate.failures):
                notes.append(f"{name}: not compared with {base}: it is damaged")
                continue
            if not folder.resolve().is_relative_to(root):
                notes.append(f"{name}: not compared with {base}: it is not in the repository")
                continue
            try:
                old = bundle_at(root, commit, name, Path(scratch, str(number)))
                rows += file_growth(name, folder, old, limits)
            except FinetDeployError as error:
                notes.append(f"{name}: not compared with {base}: {error}")
                continue
            if cost == "off":
                continue
            try:
                rows += instruction_growth(name, folder, old, limits, cores, console.detail)
            except UsageError:
                raise
            except FinetDeployError as error:
                if cost == "on":
                    raise
                notes.append(f"{name}: ARM instructions were not counted: {error}")
    for note in notes:
        console.note(note)
    return rows, notes


def _name(folder: Path, root: Path) -> str:
    real = folder.resolve()
    return real.relative_to(root).as_posix() if real.is_relative_to(root) else str(folder)


def _write(
    folders: Sequence[Path],
    found: Sequence[Certificate],
    growth: Sequence[Growth],
    notes: Sequence[str],
    summary: Path | None,
    sarif: Path | None,
) -> None:
    from finet_deploy.files import atomic_write_text, explain_os_error
    from finet_deploy.guard import plan_checks
    from finet_deploy.guard.summary import markdown_summary
    from finet_deploy.verify.sarif import Certified, repository_root, sarif_log

    if sarif is not None:
        root = repository_root(Path.cwd())
        items = [
            Certified(certificate, folder / "manifest.json", {i.name: i.file for i in plan_checks(folder)})
            for folder, certificate in zip(folders, found)
        ]
        atomic_write_text(sarif, json.dumps(sarif_log(items, root), indent=1) + "\n")
    if summary is not None:
        try:  # appended: a job's summary is shared by its steps
            with summary.open("a", encoding="utf-8", errors="replace") as stream:
                stream.write(markdown_summary(found, growth, notes))
        except OSError as error:
            raise explain_os_error(error, "write", summary) from error


def _tell(
    folders: Sequence[Path],
    found: Sequence[Certificate],
    growth: Sequence[Growth],
    notes: Sequence[str],
    console: Console,
) -> int:
    for folder, certificate in zip(folders, found):
        made = sum(check.passed is not None for check in certificate.checks)
        console.result(f"{folder}: {'passed' if certificate.passed else 'FAILED'} ({made} checks made)")
        for check in certificate.failures:
            console.result(f"  FAIL     {check.name}: {check.reason or check.message}")
    grown = [row for row in growth if not row.within]
    for row in grown:
        what = row.measure if row.core is None else f"{row.measure} on {row.core}, emulated"
        console.result(
            f"  FAIL     {row.bundle}/{row.file}: {what}: {row.percent:+.2f} %, limit {row.limit:g} %"
        )
    passed = all(certificate.passed for certificate in found) and not grown
    import msgspec

    console.document(
        {
            "passed": passed,
            "bundles": [
                {"path": str(folder), **item.to_json_object()} for folder, item in zip(folders, found)
            ],
            "growth": [
                {**msgspec.to_builtins(row), "percent": row.percent, "within": row.within} for row in growth
            ],
            "notes": list(notes),
        }
    )
    return 0 if passed else 1
