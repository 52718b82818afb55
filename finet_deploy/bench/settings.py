"""Presets (how to measure) and suites (what to measure): both are data files beside this module."""

from __future__ import annotations

import functools
from importlib import resources

import msgspec

from finet_deploy.bench.protocol import Settings
from finet_deploy.errors import UsageError, suggest

__all__ = ["Suite", "SuiteRow", "load_preset", "load_suite", "preset_names", "suite_names"]


class SuiteRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model to export: `create_model(model, **options)`, fused or not, into a bundle folder called `name`."""

    label: str
    name: str
    model: str
    options: dict[str, int | bool | str]
    fuse: bool


class Suite(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rows of one table. The first one is the baseline of the ratios."""

    name: str
    description: str
    mixed_fusion: bool
    rows: tuple[SuiteRow, ...]


def preset_names() -> tuple[str, ...]:
    """All presets, shortest first."""
    return tuple(_read("presets.json"))


def suite_names() -> tuple[str, ...]:
    """All suites."""
    return tuple(_read("suites.json"))


def load_preset(name: str) -> Settings:
    """The settings of a preset. `UsageError` for an unknown name."""
    return msgspec.convert({"preset": name, **_entry("presets.json", "preset", name)}, Settings)


def load_suite(name: str) -> Suite:
    """The rows of a suite. `UsageError` for an unknown name."""
    return msgspec.convert({"name": name, **_entry("suites.json", "suite", name)}, Suite)


@functools.cache
def _read(file: str) -> dict[str, dict[str, object]]:
    data = resources.files("finet_deploy.bench").joinpath(file).read_bytes()
    return msgspec.json.decode(data, type=dict[str, dict[str, object]])


def _entry(file: str, kind: str, name: str) -> dict[str, object]:
    entries = _read(file)
    if name not in entries:
        advice = suggest(name, entries) or f"use one of {', '.join(entries)}"
        raise UsageError(f"unknown {kind} {name!r}", do=advice)
    return entries[name]
