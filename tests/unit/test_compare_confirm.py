"""A suspected regression is measured again with both bundles in one run: planned and run by `bench`'s own functions."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

import msgspec
import pytest

from finet_deploy.api import devices as bench_devices
from finet_deploy.bench.plan import BenchRow
from finet_deploy.bench.records import read_run
from finet_deploy.bench.run import run_bench
from finet_deploy.compare import Confirmation, compare_sides, confirm, load_side
from finet_deploy.errors import FinetDeployError, UsageError
from tests.bench_fakes import DEVICE, SETTINGS
from tests.cli import FAILED, run_cli
from tests.unit import test_bench_run

bundles = test_bench_run.bundles
ONE = (0, 4, -3, 2, -5, 1, 3, -2, 5, -4, 2, -1)


class Wobbling(test_bench_run.PretendDevice):
    """Answers in `level` ms by the file's hash, a little different in every visit."""

    def __init__(self, levels, **options):
        super().__init__(**options)
        self.levels = levels

    def run_visit(self, request):
        level = self.levels[request.row.artifact.sha256]
        part = ONE[(request.visit.index * 5 + request.visit.round) % len(ONE)]
        self.answers = {request.row.label: round(level * 1e6 * (1 + part / 1000))}
        return super().run_visit(request)


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


OLD, NEW, REF = sha("old"), sha("new"), sha("ref")
FORMATS = {"onnx": "onnxruntime", "pte": "executorch"}


@pytest.fixture
def measured(bundles, tmp_path):
    """Run folders BASE and NEW; in NEW `net` was 20 % slower, as was said."""
    rows = {
        "base": [bundles("base/net", "net", sha256=OLD), bundles("base/ref", "ref", sha256=REF)],
        "new": [bundles("new/net", "net", sha256=NEW), bundles("new/ref", "ref", sha256=REF)],
    }
    for name, text in {"base/net": b"old", "new/net": b"new", "base/ref": b"ref", "new/ref": b"ref"}.items():
        folder = tmp_path / "bundles" / name
        (folder / "manifest.json").write_text("{}")  # what is in it, the fixture's `read_bundle` tells
        for fmt in FORMATS:
            (folder / f"model.{fmt}").write_bytes(text)
    levels = {OLD: 10, NEW: 12, REF: 5}
    settings = msgspec.structs.replace(SETTINGS, rounds=6)
    for name, both in rows.items():
        run_bench(both, device=Wobbling(levels), out=tmp_path / "runs" / name, preset=settings)
    return tmp_path


def sides(folder):
    return load_side("BASE", [folder / "runs" / "base"]), load_side("NEW", [folder / "runs" / "new"])


def confirmed(folder, device, **options):
    base, new = sides(folder)
    changes = compare_sides(base, new)
    assert [(row.network, row.verdict) for row in changes.rows if row.suspect] == [("net", "slower")] * 2

    @contextlib.contextmanager
    def opened(name, runner):
        assert (name, runner) == ("host", "python")
        yield device

    how = Confirmation(folder / "confirm", opened, **options)
    return confirm(changes, base, new, how)


@pytest.mark.parametrize(("level", "verdict"), [(12, "slower"), (10, "unchanged"), (8, "faster")])
def test_the_verdict_is_that_of_the_confirming_run(measured, level, verdict):
    changes = confirmed(measured, Wobbling({OLD: 10, NEW: level, REF: 5}))
    again = [row for row in changes.rows if row.network == "net"]
    assert [(row.verdict, row.evidence) for row in again] == [(verdict, "paired")] * 2
    assert all(row.confirmed and "first slower, -16.7%" in row.notes[-1] for row in again)
    assert changes.failed == (verdict == "slower")
    ref = [row for row in changes.rows if row.network == "ref"]
    assert {(row.verdict, row.confirmed) for row in ref} == {("unchanged", None)}


def test_both_bundles_are_in_one_interleaved_run_with_an_aa_row_in_all_suspected_runtimes(measured):
    confirmed(measured, Wobbling({OLD: 10, NEW: 12, REF: 5}))
    (folder,) = (measured / "confirm").iterdir()
    job = read_run(folder).job
    assert [row.label for row in job.rows[:3]] == [
        "base: net (float32)", "new: net (float32)", "A/A: base: net (float32)",
    ]  # fmt: skip
    assert {row.artifact.runtime for row in job.rows} == {"onnxruntime", "executorch"}
    assert [row.artifact.sha256 for row in job.rows[:2]] == [OLD, NEW]
    assert job.settings.rounds == 10  # more than BASE's six
    assert job.settings.timed_min_runs == SETTINGS.timed_min_runs


def test_only_what_is_suspected_is_measured_and_rounds_can_be_said(measured):
    device = Wobbling({OLD: 10, NEW: 12, REF: 5})
    confirmed(measured, device, rounds=4)
    assert len(device.visited) == 4 * 3 * 2


def test_bundles_are_found_by_hash_in_folders_that_are_named(measured):
    (measured / "bundles").rename(measured / "moved")
    with pytest.raises(FinetDeployError, match="BASE measured as 'net' is not here.*--base-bundles DIR"):
        confirmed(measured, Wobbling({}))
    (measured / "moved").rename(measured / "bundles")
    folders = {
        "base_bundles": (measured / "bundles" / "base",),
        "new_bundles": (measured / "bundles" / "new" / "net",),
    }
    assert confirmed(measured, Wobbling({OLD: 10, NEW: 12, REF: 5}), **folders).failed


def test_another_bundle_in_the_same_place_is_not_taken_for_the_one_that_was_measured(measured):
    with pytest.raises(FinetDeployError, match="NEW measured as 'net' is not here"):
        confirmed(measured, Wobbling({}), new_bundles=(measured / "bundles" / "base",))
    assert not (measured / "confirm").exists()


def test_another_device_is_refused_before_a_visit(measured):
    device = Wobbling({}, info=msgspec.structs.replace(DEVICE, cpu_count=8))
    with pytest.raises(UsageError, match="not the device of BASE: cpu_count 2 against 8"):
        confirmed(measured, device)
    assert device.visited == []


def test_two_rows_of_one_run_can_be_confirmed_too(measured, tmp_path):
    rows = [BenchRow(measured / "bundles" / side / "net", side) for side in ("base", "new")]
    settings = msgspec.structs.replace(SETTINGS, rounds=6)
    run_bench(rows, device=Wobbling({OLD: 10, NEW: 12}), out=tmp_path / "both", preset=settings)
    side, named = load_side("BASE", [tmp_path / "both"]), [("base", "new")]
    changes = compare_sides(side, None, named=named)
    assert changes.failed
    device = Wobbling({OLD: 10, NEW: 10})
    how = Confirmation(tmp_path / "confirm", lambda name, runner: contextlib.nullcontext(device))
    again = confirm(changes, side, None, how, named=named)
    assert [(row.network, row.verdict) for row in again.rows] == [("base → new", "unchanged")] * 2
    assert not again.failed


def test_where_nothing_is_suspected_nothing_is_measured(measured):
    base, _ = sides(measured)
    changes = compare_sides(base, base)
    assert confirm(changes, base, base, Confirmation(measured / "confirm", None)) is changes


def test_a_confirming_run_in_which_new_fails_is_a_regression(measured):
    def fails(request):
        from tests.bench_fakes import make_records

        return make_records(request.visit, request.row, [10_000_000] * 5, error=1.0)

    class Failing(Wobbling):
        def run_visit(self, request):
            return fails(request) if request.row.artifact.sha256 == NEW else super().run_visit(request)

    changes = confirmed(measured, Failing({OLD: 10, REF: 5}))
    assert {row.verdict for row in changes.rows if row.network == "net"} == {"invalid"}
    assert changes.failed


def test_the_command_confirms_and_its_exit_status_is_that_of_the_confirming_run(
    measured, capsys, monkeypatch
):
    monkeypatch.chdir(measured)
    for level, status in ((12, FAILED), (10, 0)):
        device = Wobbling({OLD: 10, NEW: level, REF: 5})
        monkeypatch.setattr(bench_devices, "_host", lambda options, device=device: device)
        out = Path(f"again-{level}")
        found, text, err = run_cli(
            capsys, "compare", "runs/base", "runs/new", "--confirm", "--confirm-dir", out, "--json"
        )
        assert found == status, err
        rows = json.loads(text)["rows"]
        assert {row["confirmed"] for row in rows if row["network"] == "net"} == {str(out / "00-net")}
        assert "round 10: " in err
        assert f"confirming runs  {out}" in err
