"""`finet-deploy compare`."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from finet_deploy.commands.console import Console, output_options
from finet_deploy.errors import UsageError

if TYPE_CHECKING:
    from finet_deploy.compare import Changes, Options, Side
    from finet_deploy.devices.base import Device

EPILOG = """\b
Examples:
  finet-deploy compare runs/main runs/branch
  finet-deploy compare runs/main runs/branch --confirm --base-bundles main/bundles --new-bundles bundles
  finet-deploy compare runs/both --rows old new
  finet-deploy compare runs/main runs/branch --format md > comment.md

\b
Exit status: 0 without a regression, 1 with one, 2 when the call is wrong or the runs cannot be compared.
"""
PATH = click.Path(path_type=Path)


@click.command("compare", epilog=EPILOG)
@click.argument("base", type=PATH)
@click.argument("new", type=PATH, required=False)
@click.option(
    "--base", "more_base", multiple=True, type=PATH, metavar="DIR", help="Another run of BASE. Repeatable."
)
@click.option(
    "--new", "more_new", multiple=True, type=PATH, metavar="DIR", help="Another run of NEW. Repeatable."
)
@click.option(
    "--rows", "named", nargs=2, multiple=True, metavar="BASE NEW",
    help="Compare these rows, by name, and no others. Without NEW: two rows of one run. Repeatable.",
)  # fmt: skip
@click.option(
    "--reference", "said", multiple=True, metavar="NAME",
    help="Take this row as unchanged: what it did, the machine did. Default: rows of the same file. Repeatable.",
)  # fmt: skip
@click.option(
    "--threshold", type=float, default=1.0, show_default=True, metavar="PERCENT",
    help="The least change that matters.",
)  # fmt: skip
@click.option(
    "--drift", type=float, default=10.0, show_default=True, metavar="PERCENT",
    help="Allowed for what the machine did between runs that have no row in common.",
)  # fmt: skip
@click.option(
    "--fail-on", default="speed,certificate", show_default=True, metavar="LIST",
    help="What is a regression: speed, certificate, cost, size, delegation, missing.",
)  # fmt: skip
@click.option("--confirm", is_flag=True, help="Measure suspected regressions again, both bundles in one run.")
@click.option("--base-bundles", multiple=True, type=PATH, metavar="DIR", help="Where BASE's bundles are now.")
@click.option("--new-bundles", multiple=True, type=PATH, metavar="DIR", help="Where NEW's bundles are now.")
@click.option(
    "--confirm-rounds", type=click.IntRange(min=2), metavar="N",
    help="Rounds of the confirming run (default: those of BASE, at least 10).",
)  # fmt: skip
@click.option("--confirm-dir", type=PATH, metavar="DIR", help="Its folder (default runs/confirm-<time>).")
@click.option("--base-cost", multiple=True, type=PATH, metavar="FILE", help="cost.json of BASE's bundles.")
@click.option("--new-cost", multiple=True, type=PATH, metavar="FILE", help="cost.json of NEW's bundles.")
@click.option("--format", "form", type=click.Choice(["text", "md"]), default="text", show_default=True)
@output_options
def command(
    base: Path,
    new: Path | None,
    more_base: tuple[Path, ...],
    more_new: tuple[Path, ...],
    named: tuple[tuple[str, str], ...],
    said: tuple[str, ...],
    threshold: float,
    drift: float,
    fail_on: str,
    confirm: bool,
    base_bundles: tuple[Path, ...],
    new_bundles: tuple[Path, ...],
    confirm_rounds: int | None,
    confirm_dir: Path | None,
    base_cost: tuple[Path, ...],
    new_cost: tuple[Path, ...],
    form: str,
    console: Console,
) -> int:
    """What became faster or slower from BASE to NEW, two run folders of `bench`.

    Best is one run that holds both bundles: then the rounds are pairs. Of two runs, rows whose file is the same in both
    tell what the machine itself did in between, and that is taken out.
    """
    options = _options(threshold, drift, fail_on)
    if not confirm and (base_bundles or new_bundles or confirm_rounds or confirm_dir):
        raise UsageError(
            "options of a confirming run, and no confirming run", do="add --confirm, or leave them out"
        )
    if new is None and (more_new or not named):
        raise UsageError("nothing to compare BASE with", do="name NEW, or two rows of one run with --rows")
    from finet_deploy.compare import (
        changes_object,
        compare_sides,
        load_side,
        read_costs,
        render_markdown,
        render_text,
    )

    one = load_side("BASE", [base, *more_base])
    other = load_side("NEW", [new, *more_new]) if new is not None else None
    changes = compare_sides(
        one,
        other,
        options=options,
        named=named,
        said=said,
        base_costs=read_costs(base_cost),
        new_costs=read_costs(new_cost),
    )
    if confirm:
        out = confirm_dir or Path("runs") / f"confirm-{datetime.now(timezone.utc):%Y%m%dT%H%M%S}"
        changes = _confirmed(
            changes, one, other, named, out, (base_bundles, new_bundles), confirm_rounds, console
        )
    console.result(render_markdown(changes) if form == "md" else render_text(changes))
    console.document(changes_object(changes))
    return 1 if changes.failed else 0


def _options(threshold: float, drift: float, fail_on: str) -> Options:
    from finet_deploy.compare import FAILURES, Options

    for name, value in (("--threshold", threshold), ("--drift", drift)):
        if not math.isfinite(value) or value < 0:
            raise UsageError(f"{name} {value:g}", do="give a percentage of 0 or more")
    kinds = tuple(kind.strip() for kind in fail_on.split(",") if kind.strip())
    for kind in kinds:
        if kind not in FAILURES:
            raise UsageError(f"--fail-on {kind!r}", do=f"use some of {', '.join(FAILURES)}")
    return Options(threshold=threshold / 100, drift=drift / 100, fail_on=kinds)


def _confirmed(
    changes: Changes,
    base: Side,
    new: Side | None,
    named: tuple[tuple[str, str], ...],
    out: Path,
    bundles: tuple[tuple[Path, ...], tuple[Path, ...]],
    rounds: int | None,
    console: Console,
) -> Changes:
    from finet_deploy.api.devices import DeviceOptions, open_device
    from finet_deploy.api.listener import VisitProgress
    from finet_deploy.bench.records import check_new
    from finet_deploy.compare import Confirmation, confirm

    suspects = [row for row in changes.rows if row.suspect]
    if not suspects:
        console.note("nothing is suspected to be slower: nothing to confirm")
        return changes
    check_new(out)

    @contextlib.contextmanager
    def opened(name: str, runner: str | None) -> Iterator[Device]:
        options = DeviceOptions(runner=runner, emulated=False, pinned=True, clean=False)
        with open_device(name, options, console) as device:
            yield device

    with VisitProgress(console) as progress:
        how = Confirmation(out, opened, *bundles, rounds=rounds, progress=progress)
        found = confirm(changes, base, new, how, named=named)
    console.note(f"confirming runs  {out}")
    return found
