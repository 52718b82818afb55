"""A search from the network to the folder: on a pretended device that knows its speeds, and once on this machine."""

from __future__ import annotations

import csv
import json
import shutil
import xml.etree.ElementTree
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
import torch

from finet_deploy.bench.protocol import Invalid
from finet_deploy.bench.records import read_run
from finet_deploy.bench.schedule import plan_visits
from finet_deploy.devices.host import HostDevice
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.export import Bundle, CheckFailed, read_bundle
from finet_deploy.images import Preprocessing, natural_noise
from finet_deploy.quantize import calibration_of
from finet_deploy.tune import count as counting
from finet_deploy.tune.budget import Budget
from finet_deploy.tune.build import Network, build_all, exporter
from finet_deploy.tune.folder import unfinished_name
from finet_deploy.tune.model import Recipe, TuneResult
from finet_deploy.tune.place import Place
from finet_deploy.tune.search import Asked, tune
from finet_deploy.tune.space import further_recipes
from finet_deploy.verify import Limits
from tests.bench_fakes import DEVICE, make_records
from tests.export.conftest import TinyNet, well_conditioned

SIZE = 16
MS = 1_000_000


def network() -> Network:
    torch.manual_seed(0)
    model = well_conditioned(TinyNet())
    generator = torch.Generator().manual_seed(0)
    images = torch.cat([natural_noise(SIZE, SIZE, generator) for _ in range(16)])
    inputs = {"photo_0": images[:1], "photo_1": images[1:2], "noise_0": torch.randn(1, 3, SIZE, SIZE)}
    return Network(model, inputs, Preprocessing(resize=18, crop=SIZE), calibration_of(images, "noise"))


class PretendDevice:
    """Takes `ms(row, round)` an inference; every visit takes `seconds` of the clock `now`."""

    runner, runtimes = "python", None

    def __init__(self, ms: Callable, *, now: list[float] | None = None, seconds: float = 1.0) -> None:
        self.ms, self.now, self.seconds = ms, now or [0.0], seconds
        self.visited: list[str] = []
        self.interrupt_at: int | None = None

    def info(self):
        return DEVICE

    def default_threads(self) -> int:
        return 1

    def prepare(self, rows, folder) -> None:
        pass

    def run_visit(self, request):
        if len(self.visited) == self.interrupt_at:
            raise KeyboardInterrupt
        self.now[0] += self.seconds
        self.visited.append(request.row.id)
        ms = self.ms(request.row, request.visit.round)
        if ms is None:
            return [Invalid(visit=request.visit.index, reason="killed by SIGKILL", phase="load")]
        errors = dict.fromkeys(request.row.golden.output_limits, 0.0)
        records = make_records(request.visit, request.row, [int(ms * MS)] * 20)
        return [*records[:-1], msgspec.structs.replace(records[-1], output_errors=errors)]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> dict[Recipe, Bundle]:
    """What a search in ONNX Runtime exports: fp32 and int8 bundles of the tiny network. Copy, never change."""
    built = build_all(
        exporter(network(), Limits()),
        tmp_path_factory.mktemp("tune"),
        dtypes=("float32", "int8"),
        formats={"float32": ("onnx",), "int8": ("onnx",)},
        cores=(),
        budget=Budget(1e9),
        tell=lambda text: None,
    )
    assert {bundle.manifest.artifacts["onnx"].dtype for bundle in built.bundles.values()} == {
        "float32",
        "int8",
    }
    return built.bundles


@pytest.fixture
def search(exported, tmp_path, monkeypatch):
    """`search(device, seconds=..., ...)`: one of the tiny network, with the bundles that were exported before."""

    def copy(recipe: Recipe, path: Path) -> Bundle:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(exported[recipe].path, path)
        return read_bundle(path)

    monkeypatch.setattr("finet_deploy.tune.search.exporter", lambda network, limits: copy)

    def run(device, seconds: float = 1000.0, out: str = "out", **changes) -> TuneResult:
        asked = {"threads": (1, 2), "resume": False, "min_sqnr_db": 20.0, **changes}
        place = device if isinstance(device, Place) else Place(device=device)
        clock = getattr(device, "now", [0.0])
        return tune(
            Asked(
                subject="tiny",
                identity={"source": "tiny"},
                formats=("onnx",),
                dtypes=("float32", "int8"),
                **asked,
            ),
            lambda: None,
            place,
            tmp_path / out,
            budget=Budget(seconds, lambda: clock[0]),
        )

    return run


def int8_twice_as_fast(row, round_number: int) -> float:
    wobble = 1 + 0.004 * ((round_number * 7) % 5 - 2)
    return (5 if row.artifact.dtype == "int8" else 10) / row.threads**0.25 * wobble


def test_the_fastest_wins_and_its_bundle_table_picture_and_records_are_there(search, tmp_path):
    result = search(PretendDevice(int8_twice_as_fast))
    assert result.beats_default
    winner = result.winner
    assert (winner.candidate.dtype, winner.candidate.threads) == ("int8", 2)
    assert winner.verdict == "faster"
    assert winner.ratio.value == pytest.approx(2 * 2**0.25, rel=0.01)
    assert "The winner is onnxruntime, int8" in result.sentence
    out = tmp_path / "out"
    assert not unfinished_name(out).exists()
    assert sorted(item.name for item in out.iterdir()) == [
        "bundle", "rungs", "tune.csv", "tune.json", "tune.md", "tune.svg",
    ]  # fmt: skip
    bundle = read_bundle(out / "bundle")
    assert bundle.manifest.artifacts["onnx"].sha256 == winner.candidate.sha256
    stored = json.loads((out / "tune.json").read_text())
    assert stored["rows"][0]["default"]
    assert stored["sentence"] == result.sentence
    rows = list(csv.DictReader((out / "tune.csv").open()))
    assert [row["candidate"] for row in rows if row["winner"] == "True"] == [winner.candidate.id]
    xml.etree.ElementTree.parse(out / "tune.svg")
    assert result.sentence.split(" (")[0] in (out / "tune.md").read_text()
    last = read_run(out / "rungs" / f"rung-{len(result.rungs)}")
    assert last.job.settings.aa_row
    assert [row.aa_of for row in last.job.rows] == [None, None, result.rows[0].candidate.id]


def test_the_front_has_the_fastest_of_each_precision_and_number_of_threads(search):
    result = search(PretendDevice(int8_twice_as_fast))
    front = {(row.candidate.dtype, row.candidate.threads) for row in result.rows if row.pareto}
    assert front == {("float32", 1), ("float32", 2), ("int8", 1), ("int8", 2)}
    slow_int8 = search(
        PretendDevice(lambda row, n: 10.0 * (2 if row.artifact.dtype == "int8" else 1)), out="b"
    )
    assert {row.candidate.dtype for row in slow_int8.rows if row.pareto} == {"float32"}


@pytest.mark.parametrize(
    ("slower_by", "words"),
    [
        (1.0, "the interval includes 1"),
        (1.3, "it is slower"),
        (0.999, "not above the noise floor|includes 1"),
    ],
)
def test_what_does_not_beat_the_default_beyond_noise_leaves_it_the_winner_and_says_so(
    search, slower_by, words
):
    def speed(row, n):
        noise = 1 + 0.02 * ((n * 3 + len(row.id) + len(row.label)) % 7 - 3)
        return 10 * noise * (1 if row.id == "onnx-float32-default-1t" else slower_by)

    result = search(PretendDevice(speed))
    assert not result.beats_default
    assert result.winner.default
    assert result.sentence.startswith("Nothing beats the default bundle, which is kept")
    assert any(word in result.sentence for word in words.split("|"))
    assert "times the default bundle's images per second" in result.sentence


def test_the_budget_is_kept_and_what_it_cost_is_said(search, tmp_path):
    for seconds in (0.5, 12.0, 30.0, 60.0):
        now = [0.0]
        out = f"out{seconds}"
        result = search(PretendDevice(int8_twice_as_fast, now=now, seconds=2.0), seconds, out)
        assert now[0] <= seconds
        for row in result.rows:
            assert row.ratio is not None or row.default or "no time" in row.why_not
        dropped = [row for row in result.rows if row.why_not and "no time" in row.why_not]
        assert bool(dropped) == any("dropped for no time" in note for note in result.notes)
    assert search(PretendDevice(int8_twice_as_fast), 0.5, "none").winner.default


def test_visits_that_take_longer_than_expected_cut_rounds_instead_of_the_budget(search):
    device = PretendDevice(int8_twice_as_fast)
    device.seconds = 10.0  # the first guess is 4
    result = search(device, 100.0)
    assert device.now[0] <= 100.0
    assert any("not made, the budget was at its end" in note for note in result.notes) or result.beats_default
    device = PretendDevice(int8_twice_as_fast, seconds=50.0)
    result = search(device, 100.0, "b")
    assert device.now[0] <= 150.0  # a first visit that takes longer than anybody knew
    assert result.winner.default
    assert result.notes
    device = PretendDevice(int8_twice_as_fast, seconds=150.0)
    result = search(device, 100.0, "c")
    assert (
        "The budget was exceeded by 50 s: an export or a visit that is under way is not cut short."
        in result.notes
    )


def test_a_candidate_that_dies_is_out_and_the_others_go_on(search):
    result = search(PretendDevice(lambda r, n: None if r.threads == 2 else int8_twice_as_fast(r, n)))
    assert result.winner.candidate.id == "onnx-int8-default-1t"
    dead = [row for row in result.rows if row.ratio is None]
    assert {row.candidate.threads for row in dead} == {2}
    assert {row.why_not for row in dead} == {"its visits failed: killed by SIGKILL (in phase load)"}
    result = search(PretendDevice(lambda r, n: None), out="b")
    assert result.winner.default
    assert "kept" in result.sentence


def test_ctrl_c_leaves_no_output_and_resume_measures_only_what_is_missing(search, tmp_path):
    device = PretendDevice(int8_twice_as_fast)
    whole = search(device, 100.0, "whole")
    total = len(device.visited)
    device = PretendDevice(int8_twice_as_fast)
    device.interrupt_at = total - 5
    with pytest.raises(KeyboardInterrupt):
        search(device, 100.0)
    assert not (tmp_path / "out").exists()
    work = unfinished_name(tmp_path / "out")
    assert (work / "bundles").is_dir()
    with pytest.raises(UsageError, match="an unfinished search is here.*--resume"):
        search(PretendDevice(int8_twice_as_fast))
    with pytest.raises(UsageError, match="asked for otherwise: min_sqnr_db differ"):
        search(PretendDevice(int8_twice_as_fast), resume=True, min_sqnr_db=30.0)
    rest = PretendDevice(int8_twice_as_fast)
    result = search(rest, 100.0, resume=True)
    assert len(rest.visited) == 5
    assert result.winner.candidate == whole.winner.candidate
    assert result.rungs == whole.rungs
    assert not work.exists()


def test_resume_refuses_a_bundle_that_was_changed_and_a_rung_of_another_search(search, tmp_path):
    device = PretendDevice(int8_twice_as_fast)
    device.interrupt_at = 3
    with pytest.raises(KeyboardInterrupt):
        search(device)
    work = unfinished_name(tmp_path / "out")
    job = work / "rungs" / "rung-1" / "job.json"
    text = job.read_text()
    job.write_text(text.replace("onnx-int8-default-1t", "onnx-int8-other-1t"))
    with pytest.raises(UsageError, match="of another search"):
        search(PretendDevice(int8_twice_as_fast), resume=True)
    job.write_text(text)
    plan = work / "plan.json"
    plan.write_text(plan.read_text().replace('"bundle": "int8-default"', '"bundle": "../../../int8-default"'))
    with pytest.raises(FinetDeployError, match="leaves its folder"):
        search(PretendDevice(int8_twice_as_fast), resume=True)


def test_an_existing_output_is_never_touched(search, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(UsageError, match="output exists"):
        search(PretendDevice(int8_twice_as_fast))
    assert not unfinished_name(tmp_path / "out").exists()


def test_a_failure_before_anything_was_exported_leaves_nothing(search, tmp_path, monkeypatch):
    def fails(network, limits):
        def export(recipe, path):
            raise FinetDeployError("cannot be traced")

        return export

    monkeypatch.setattr("finet_deploy.tune.search.exporter", fails)
    with pytest.raises(FinetDeployError, match="cannot be traced"):
        search(PretendDevice(int8_twice_as_fast))
    assert list(tmp_path.iterdir()) == []


def test_a_candidate_whose_certificate_fails_is_out_with_the_reason(exported, tmp_path):
    """The limit is the certificate's: an int8 file that does not keep it is never a bundle."""
    built = build_all(
        exporter(network(), Limits(int8_sqnr_db=200.0)),
        tmp_path,
        dtypes=("float32", "int8"),
        formats={"float32": ("onnx",), "int8": ("onnx",)},
        cores=(),
        budget=Budget(1e9),
        tell=lambda text: None,
    )
    assert [recipe.dtype for recipe in built.bundles] == ["float32"]
    (out,) = built.left_out
    assert out.what == "bundle int8-default"
    assert "check failed: artifact/onnx" in out.reason
    assert "limit 200 dB" in out.reason


def test_a_format_that_fails_does_not_take_the_other_one_with_it(exported, tmp_path):
    first = next(iter(exported.values()))
    made = []

    def export(recipe, path):
        made.append((recipe.dtype, recipe.formats))
        if recipe.dtype == "int8" and "onnx" in recipe.formats:
            raise FinetDeployError("check failed: artifact/onnx")
        return first

    both = ("pte", "onnx")
    built = build_all(
        export, tmp_path, dtypes=("float32", "int8"), formats={"float32": both, "int8": both}, cores=(),
        budget=Budget(1e9), tell=lambda text: None,
    )  # fmt: skip
    assert made[1:] == [("int8", both), ("int8", ("pte",)), ("int8", ("onnx",))]
    assert [(recipe.dtype, recipe.formats) for recipe in built.bundles][1:] == [("int8", ("pte",))]
    assert [item.what for item in built.left_out] == ["bundle int8-default-onnx"]


def test_the_default_whose_certificate_fails_is_an_error(exported, tmp_path):
    def export(recipe, path):
        raise CheckFailed(next(iter(exported.values())).certificate())

    with pytest.raises(CheckFailed):
        build_all(
            export, tmp_path, dtypes=("float32",), formats={"float32": ("onnx",)}, cores=(),
            budget=Budget(1e9), tell=print,
        )  # fmt: skip


def test_exporting_takes_its_share_of_the_budget_and_what_did_not_fit_is_said(exported, tmp_path):
    now = [0.0]

    def slow(recipe, path):
        now[0] += 30.0
        return next(iter(exported.values()))

    built = build_all(
        slow,
        tmp_path,
        dtypes=("float32", "int8"),
        formats={"float32": ("onnx",), "int8": ("onnx",)},
        cores=(),
        budget=Budget(100.0, lambda: now[0]),
        tell=lambda text: None,
    )
    assert len(built.bundles) == 1
    assert [(item.what, item.reason) for item in built.left_out] == [
        ("bundle int8-default", "no time to export it: it takes some 1 min 0 s")
    ]


def entry(bundle: Bundle, fmt: str, passes: tuple[str, ...], dtype: str = "float32"):
    from finet_deploy.export.schema import PassEntry

    made = [PassEntry(name=name, changes=("x",), max_error=0.0) for name in passes]
    return msgspec.structs.replace(
        bundle.manifest.artifacts["onnx"], format=fmt, dtype=dtype, passes=tuple(made)
    )


def test_only_passes_that_changed_the_network_are_left_out_and_shapes_are_tried_for_other_cores(exported):
    bundle = next(iter(exported.values()))
    artifacts = {
        "pte": entry(bundle, "pte", ("pooling", "pad-channels", "split-pixels")),
        "onnx": entry(bundle, "onnx", ("fold-affine",)),
    }
    manifest = msgspec.structs.replace(bundle.manifest, artifacts=artifacts)
    found = [
        (recipe.passes, recipe.core, recipe.formats) for recipe in further_recipes(manifest, ["cortex-a53"])
    ]
    assert found == [
        ("default", "cortex-a53", ("pte",)),
        ("default,-pad-channels", "cortex-a76", ("pte",)),
        ("default,-split-pixels", "cortex-a76", ("pte",)),
        ("default,-pooling", "cortex-a76", ("pte",)),
        ("none", "cortex-a76", ("pte", "onnx")),
    ]
    assert (
        further_recipes(msgspec.structs.replace(manifest, artifacts={"onnx": entry(bundle, "onnx", ())}), [])
        == []
    )
    lower = {"pte": entry(bundle, "pte", ("fold-affine", "pooling"), "int8")}
    found = further_recipes(msgspec.structs.replace(manifest, artifacts=lower), ["cortex-a53"])
    assert [recipe.passes for recipe in found] == ["none"]


def pretend_counts(monkeypatch, counts: dict[str, int | None]) -> list[str]:
    """Candidates' instructions by precision; None: it cannot be counted."""
    counted = []

    def measure(bundles, *, cores, runtimes):
        from types import SimpleNamespace

        from finet_deploy.runner.cost import CostRow

        ((path, label),) = bundles
        artifact = read_bundle(path).manifest.artifacts["onnx"]
        counted.append(label)
        if counts[artifact.dtype] is None:
            raise FinetDeployError("the emulated visit does not count")
        row = CostRow(
            label=label, fused=True, runtime="onnxruntime", runtime_version="1", core=cores[0], delegates=None,
            nodes_outside=None, macs=1, artifact_sha256=artifact.sha256, instructions=counts[artifact.dtype],
            classes={}, output_error=0.0, dtype=artifact.dtype,
        )  # fmt: skip
        return SimpleNamespace(rows=(row,))

    monkeypatch.setattr(counting, "measure_cost", measure)
    return counted


def test_on_an_emulated_core_the_cheapest_wins_and_every_file_says_emulated(search, tmp_path, monkeypatch):
    pretend_counts(monkeypatch, {"float32": 2_000_000, "int8": 500_000})
    result = search(Place(core="cortex-a53"), threads=None)
    assert result.winner.candidate.dtype == "int8"
    assert result.winner.ratio.value == 4.0
    assert result.emulated
    assert "emulated: a cost, not a speed" in result.sentence
    for suffix in ("md", "csv", "json", "svg"):
        assert "emulated" in (tmp_path / "out" / f"tune.{suffix}").read_text()
    again = search(Place(core="cortex-a53"), out="again", threads=None)
    assert (again.rows, again.sentence) == (result.rows, result.sentence)


def test_equal_counts_keep_the_default_and_what_cannot_be_counted_is_out(search, monkeypatch):
    pretend_counts(monkeypatch, {"float32": 7, "int8": 7})
    result = search(Place(core="cortex-a53"), threads=None)
    assert (result.winner.default, result.beats_default) == (True, False)
    assert "Nothing is cheaper than the default bundle on cortex-a53" in result.sentence
    pretend_counts(monkeypatch, {"float32": 7, "int8": None})
    result = search(Place(core="cortex-a53"), out="b", threads=None)
    assert result.winner.default
    assert [item.reason for item in result.left_out] == ["the emulated visit does not count"]
    with pytest.raises(UsageError, match="a count is of one thread"):
        search(Place(core="cortex-a53"), out="c")


def test_counts_that_were_made_are_not_made_again(search, tmp_path, monkeypatch):
    def stops(*bundles, **options):
        raise KeyboardInterrupt

    counted = pretend_counts(monkeypatch, {"float32": 2, "int8": 1})
    measure = counting.measure_cost
    monkeypatch.setattr(counting, "measure_cost", lambda b, **o: stops() if counted else measure(b, **o))
    with pytest.raises(KeyboardInterrupt):
        search(Place(core="cortex-a53"), threads=None)
    counted = pretend_counts(monkeypatch, {"float32": 2, "int8": 1})
    assert search(Place(core="cortex-a53"), threads=None, resume=True).winner.candidate.dtype == "int8"
    assert counted == ["onnxruntime, int8, passes default, 1 thread"]


@contextmanager
def _ticking(steps: list[str], title: str, total: int) -> Iterator[Callable[[str], None]]:
    yield lambda step: steps.append(f"{title}: {step}")


def test_a_bundle_is_searched_on_this_machine_by_its_files_and_threads(exported, tmp_path):
    """The whole way, with real processes: the clock is one that ticks at each look, so that load changes nothing."""
    ticks = iter(range(10_000))
    steps: list[str] = []
    bundle = next(iter(exported.values()))
    device = HostDevice()
    result = tune(
        Asked(
            subject="tiny",
            identity={},
            formats=bundle.formats,
            dtypes=("float32",),
            threads=(1, device.info().cpu_count),
            min_sqnr_db=20.0,
        ),
        bundle,
        Place(device=device),
        tmp_path / "out",
        budget=Budget(60.0, lambda: float(next(ticks))),
        steps=lambda title, total: _ticking(steps, title, total),
    )
    assert len(result.rows) == len({1, device.info().cpu_count})
    assert all(row.rounds >= 3 and row.images_per_second.value > 0 for row in result.rows)
    assert result.winner.default is not result.beats_default
    assert steps
    assert not any("INVALID" in step for step in steps)
    assert read_bundle(tmp_path / "out" / "bundle").manifest == bundle.manifest
    job = read_run(tmp_path / "out" / "rungs" / "rung-1").job
    assert job.visits == plan_visits([[row.id for row in job.rows]], job.settings.rounds)
