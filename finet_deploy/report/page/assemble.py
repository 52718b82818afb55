"""The page's content, before it is HTML: what it says at the top, its tables, its pictures, its footnotes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finet_deploy.bench.records import Run
from finet_deploy.devices.phone_log import PhoneProof, read_lines
from finet_deploy.report.across import protocol_differences
from finet_deploy.report.footnotes import run_notes
from finet_deploy.report.page.drawing import Picture
from finet_deploy.report.page.measured import Panel, arrange, device_label, group_panels
from finet_deploy.report.page.published import beside_ours, kept_tables
from finet_deploy.report.page.ratios import ratios
from finet_deploy.report.page.spread import distribution, rounds
from finet_deploy.report.page.table import Table
from finet_deploy.report.page.tables import all_rows, by_device, evidence, invalid_visits
from finet_deploy.report.page.text import shown
from finet_deploy.report.page.traces import traces
from finet_deploy.report.page.versus import AXES, scatter

__all__ = ["Choice", "Content", "Notes", "PanelPictures", "assemble"]


@dataclass(frozen=True)
class Choice:
    """Pictures of one group of which the reader looks at one at a time: by the name of its axis."""

    title: str
    key: str
    emulated: bool
    pictures: dict[str, Picture]


@dataclass(frozen=True)
class PanelPictures:
    """The plots of one table of one run."""

    title: str
    device: str
    runtime: str
    emulated: bool
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Notes:
    """Footnotes of a run."""

    title: str
    texts: tuple[str, ...]


@dataclass(frozen=True)
class Content:
    """All that the template prints. facts: short statements for the top; devices and runtimes: what is filtered
    by. apart: settings that keep runs out of one table."""

    title: str
    facts: tuple[tuple[str, str], ...]
    emulated: tuple[str, ...]
    devices: tuple[str, ...]
    runtimes: tuple[tuple[str, str], ...]
    apart: tuple[str, ...]
    throughput: tuple[tuple[Table, Picture | None], ...]
    rows: Table
    invalid: Table | None
    versus: tuple[Choice, ...]
    panels: tuple[PanelPictures, ...]
    traces: tuple[Picture, ...]
    untraced: tuple[str, ...]
    evidence: Table
    paper: tuple[Table, ...]
    kept: tuple[Table, ...]
    notes: tuple[Notes, ...]

    @property
    def pictures(self) -> list[Picture]:
        """All of them, in the order of the page."""
        found = [picture for _, picture in self.throughput if picture is not None]
        found += [picture for choice in self.versus for picture in choice.pictures.values()]
        found += [picture for panel in self.panels for picture in panel.pictures]
        return [*found, *self.traces]


def assemble(runs: Sequence[Run]) -> Content:
    """The content for these runs. Raises what reading a phone's lines raises."""
    panels = arrange(runs)
    groups = group_panels(panels)
    lines = [read_lines(run.folder) for run in runs]
    proofs = {}
    for run, found in zip(runs, lines):
        by_row = {line.row: line.equivalence for line in found if isinstance(line, PhoneProof)}
        for panel in panels:
            if panel.run is run:
                proofs.update({(panel.key, row): proof for row, proof in by_row.items()})
    traced = [traces(run, number, found) for number, (run, found) in enumerate(zip(runs, lines))]
    paper = tuple(beside_ours(panels))
    return Content(
        title=_title(runs),
        facts=_facts(runs, panels),
        emulated=tuple(dict.fromkeys(device_label(run) for run in runs if run.job.device.emulated)),
        devices=tuple(dict.fromkeys(panel.device for panel in panels)),
        runtimes=tuple(
            dict.fromkeys((panel.comparison.runtime, panel.runtime.rsplit(" ", 1)[0]) for panel in panels)
        ),
        apart=tuple(shown(difference, 600) for difference in protocol_differences(runs)),
        throughput=tuple((by_device(group), ratios(group)) for group in groups),
        rows=all_rows(panels),
        invalid=invalid_visits(panels),
        versus=tuple(
            Choice(group.title, group.key, group.table.emulated, drawn)
            for group in groups
            if (drawn := {axis.name: made for axis in AXES if (made := scatter(group, axis)) is not None})
        ),
        panels=tuple(_plots(panel) for panel in panels),
        traces=tuple(picture for picture, _ in traced if picture is not None),
        untraced=tuple(
            dict.fromkeys(
                f"{device_label(run)}: {reason}"
                for run, (_, reasons) in zip(runs, traced)
                for reason in reasons
            )
        ),
        evidence=evidence(panels, proofs),
        paper=paper,
        kept=tuple(kept_tables()) if paper else (),
        notes=tuple(
            Notes(_run_title(run), tuple(shown(note, 900) for note in run_notes(run))) for run in runs
        ),
    )


def _plots(panel: Panel) -> PanelPictures:
    pictures = tuple(made for made in (distribution(panel), rounds(panel)) if made is not None)
    return PanelPictures(panel.title, panel.device, panel.comparison.runtime, panel.emulated, pictures)


def _title(runs: Sequence[Run]) -> str:
    suites = list(dict.fromkeys(run.job.suite or "bundles" for run in runs))
    return shown(f"Measured throughput: {', '.join(suites)}")


def _run_title(run: Run) -> str:
    job = run.job
    words = f"{job.suite or 'bundles'} on {device_label(run)}, preset {job.settings.preset}"
    return shown(f"{words}, runner {job.runner}" if job.runner else words)


def _facts(runs: Sequence[Run], panels: Sequence[Panel]) -> tuple[tuple[str, str], ...]:
    rows = [row.summary for panel in panels for row in panel.rows]
    invalid = sum(len(row.invalid) for row in rows)
    missing = sum(row.missing_visits for row in rows)
    samples = sum(row.samples for row in rows)
    certified = sum(row.row.certificate_passed for row in rows)
    return (
        ("runs", str(len(runs))),
        ("devices", str(len({device_label(run) for run in runs}))),
        ("rows", str(len(rows))),
        ("timed images", f"{samples:,}".replace(",", " ")),
        ("certificates passed", f"{certified} of {len(rows)}"),
        ("invalid visits", str(invalid) + (f", {missing} missing" if missing else "")),
    )
