"""Grids of the papers' tables: the right runs, none lost or done twice, none hidden; tables from records alone."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from finet_deploy.data import open_dataset
from finet_deploy.data.dataset import Selection, spread
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.report.paper import MIMICNORM_TABLES, paper_csv, paper_table
from finet_deploy.reproduce.grid import Cell, Plan, grid_names, load_grid, make_cells, make_plan, select_cells
from finet_deploy.reproduce.records import (
    CellRecord,
    Share,
    load_grid_folder,
    open_grid_folder,
    read_record,
    run_folder,
    write_record,
)
from finet_deploy.reproduce.runner import Where, pending_cells, run_cells
from finet_deploy.reproduce.summary import student_interval
from finet_deploy.reproduce.table import figures_of, table_csv, table_markdown, table_object
from finet_deploy.train import Silent
from finet_deploy.train.recipes import load_recipe
from tests.cli import FAILED, USAGE, error_line, run_cli

DATA = Path(__file__).parents[1] / "data" / "reproduce"


def plan_of(name: str, dataset: str = "digits", seeds: int | None = 1, **changes: Any) -> Plan:
    return make_plan(load_grid(name), dataset, None, changes, seeds)


def record_of(cell: Cell, top1: float | None, status: Any = "done", **changes: Any) -> CellRecord:
    share = None if top1 is None else Share(value=top1, low=top1 - 0.02, high=top1 + 0.01, images=359)
    values: dict[str, Any] = {
        "row": cell.row,
        "column": cell.column,
        "seed": cell.seed,
        "status": status,
        "recipe": cell.recipe.to_json_object(),
        "num_classes": 10,
        "last": share,
        "best": share,
        "steps": 100,
        "seconds": 10.0,
        "fingerprint": "f" * 16,
        "machine": "a machine, 2 threads",
        "torch": "2.15.0",
        "finet_deploy": "0.1.0",
    }
    return CellRecord(**(values | changes))


# Which runs


@pytest.mark.parametrize(
    ("name", "count"),
    [("table5", 10), ("table6", 3), ("table7", 6), ("mimic", 28), ("mimic-nets", 12), ("groups", 4)],
)
@pytest.mark.parametrize("dataset", ["digits", "cifar10", "cifar100"])
def test_each_grid_is_made_of_sound_runs_with_names_of_their_own(name, count, dataset):
    plan = plan_of(name, dataset, seeds=2)
    cells = make_cells(plan)
    assert len(cells) == len({cell.name for cell in cells}) == 2 * count
    assert {cell.recipe.dataset for cell in cells} == {dataset}
    assert [cell.seed for cell in cells] == [0] * count + [1] * count
    for cell in cells:
        assert cell.recipe.model_config(10).num_classes == 10
        assert cell.name == Path(cell.name).name


def test_the_grids_vary_what_the_papers_tables_vary():
    assert set(grid_names()) == {"table5", "table6", "table7", "mimic", "mimic-nets", "groups"}
    recipes = [cell.recipe for cell in make_cells(plan_of("table5", "cifar10"))]
    assert {(one.affine, one.num_groups) for one in recipes} == {
        (a, g) for a in (True, False) for g in (1, 2, 4, 6, 8)
    }
    assert {(one.model, one.se, one.epochs, one.batch_size) for one in recipes} == {
        ("finet_large", False, 200, 128)
    }
    recipes = [cell.recipe for cell in make_cells(plan_of("table6", "cifar100"))]
    assert [one.channels_per_group for one in recipes] == [20, 50, 100]
    recipes = [cell.recipe for cell in make_cells(plan_of("table7", "cifar10"))]
    assert {(one.model, one.num_groups, one.batch_size) for one in recipes} == {
        (model, g, 64) for model in ("resnet18_fbn", "resnet50_fbn") for g in (1, 2, 4)
    }
    recipes = [cell.recipe for cell in make_cells(plan_of("mimic-nets", "cifar100"))]
    assert {(one.norm, one.epochs) for one in recipes} == {("bn", 150), ("mimic", 150)}
    assert {one.batch_size for one in recipes if one.model != "resnet50"} == {256}
    assert {one.batch_size for one in recipes if one.model == "resnet50"} == {128}
    recipes = [cell.recipe for cell in make_cells(plan_of("groups"))]
    assert [(one.model, one.se, one.num_groups) for one in recipes] == [
        ("finet_small", True, g) for g in (1, 2, 4, 8)
    ]


def test_the_study_of_learning_rates_has_the_four_networks_of_its_table():
    plan = plan_of("mimic", "cifar100")
    cells = make_cells(plan)
    assert {(cell.recipe.model, cell.recipe.epochs) for cell in cells} == {("vgg16", 10)}
    row = {cell.column: cell.recipe.model_config(100) for cell in cells if cell.row == "lr=0.2"}
    forms = {name: (one.norm, one.weight_mean, one.last_bn) for name, one in row.items()}
    assert forms == {
        "none": ("mimic", False, False),
        "weight mean": ("mimic", True, False),
        "MimicNorm": ("mimic", True, True),
        "BN": ("bn", True, True),
    }
    # Its code warms up from 1e-4, whatever the rate.
    for cell in cells:
        assert cell.recipe.lr * cell.recipe.warmup_start == pytest.approx(1e-4)
        assert cell.row == f"lr={cell.recipe.lr}"


def test_every_place_of_a_grid_has_the_papers_figure_that_stands_there():
    for name, dataset, row, column, value in [
        ("table5", "cifar10", "with affine", "G=4", 93.532),
        ("table5", "cifar100", "without affine", "G=8", 74.734),
        ("table6", "cifar100", "Finet", "C/G=100", 75.674),
        ("table7", "cifar10", "ResNet50", "G=2", 95.040),
        ("table7", "cifar10", "ResNet50", "G=4", None),
        ("mimic", "cifar100", "lr=0.2", "weight mean", 1.00),
        ("mimic", "cifar100", "lr=0.2", "MimicNorm", 39.41),
        ("mimic-nets", "cifar100", "VGG16", "BN", 72.28),
        ("mimic-nets", "cifar100", "ShuffleNetV2", "MimicNorm", 70.93),
    ]:
        figures = {(one.row, one.column): one for one in figures_of(plan_of(name, dataset), [])}
        (paper,) = figures[row, column].paper
        assert (paper.value, paper.same) == (value, True)
        # Nothing is looked up beside the table: all other places have a figure, too.
        missing = [key for key, one in figures.items() if one.paper[0].value is None]
        assert missing == ([("ResNet50", "G=4")] if name == "table7" else [])
    assert all(one.paper == () for one in figures_of(plan_of("groups"), []))


@pytest.mark.parametrize("number", MIMICNORM_TABLES)
def test_mimicnorms_tables_are_whole(number):
    header, body = paper_table(number, "mimicnorm")
    assert all(len(row) == len(header) for row in body)
    assert len(body) == {1: 6, 2: 7}[number]
    assert len(pandas.read_csv(io.StringIO(paper_csv(number, "mimicnorm")))) == len(body)
    with pytest.raises(UsageError, match="table 3 of mimicnorm is not kept"):
        paper_csv(3, "mimicnorm")
    with pytest.raises(UsageError, match="are not kept"):
        paper_csv(1, "batchnorm")


def test_changes_reach_every_run_but_not_what_the_grid_varies():
    cells = make_cells(plan_of("mimic", seeds=2, model="vgg11", epochs=2, seed=5))
    assert {(cell.recipe.model, cell.recipe.epochs, cell.recipe.flip) for cell in cells} == {
        ("vgg11", 2, False)
    }
    assert {cell.seed for cell in cells} == {5, 6}
    for name, changes in (
        ("mimic", {"lr": 0.1}),
        ("table5", {"num_groups": 2}),
        ("table7", {"model": "vgg11"}),
    ):
        with pytest.raises(UsageError, match=f"is what the grid {name} varies"):
            make_cells(plan_of(name, **changes))


def test_cells_are_chosen_by_rows_and_columns():
    plan = plan_of("mimic", seeds=2)
    cells = make_cells(plan)
    assert select_cells(plan, cells, []) == cells
    chosen = select_cells(plan, cells, ["lr=0.2", "lr=0.1", "BN"])
    assert {(cell.row, cell.column) for cell in chosen} == {("lr=0.2", "BN"), ("lr=0.1", "BN")}
    assert len(select_cells(plan, cells, ["weight mean"])) == 14
    with pytest.raises(UsageError, match=r"no row or column 'lr=0\.3'; did you mean"):
        select_cells(plan, cells, ["lr=0.3"])
    with pytest.raises(UsageError, match="did you mean 'table5'"):
        load_grid("tabel5")


# Figures


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12))
def test_students_interval_is_around_the_mean_within_0_and_1(values):
    low, high = student_interval(values)
    mean = math.fsum(values) / len(values)
    assert 0 <= low <= mean + 1e-12
    assert mean - 1e-12 <= high <= 1


def test_students_interval_is_that_of_the_tables():
    # t(0.975, 4) = 2.776, t(0.975, 1) = 12.706, from printed tables.
    low, high = student_interval([0.50, 0.52, 0.54, 0.56, 0.58])
    half = 2.776 * math.sqrt(0.001) / math.sqrt(5)
    assert (low, high) == pytest.approx((0.54 - half, 0.54 + half), abs=1e-5)
    low, high = student_interval([0.500, 0.502])
    assert (low, high) == pytest.approx((0.501 - 12.706e-3, 0.501 + 12.706e-3), abs=1e-6)


def some_records(plan: Plan) -> list[CellRecord]:
    """All places of the grid but one, with one that diverged and one that failed."""
    records = []
    for index, cell in enumerate(make_cells(plan)):
        if (cell.row, cell.column, cell.seed) == ("without affine", "G=8", 1):
            continue
        if (cell.column, cell.seed) == ("G=6", 1):
            records.append(record_of(cell, None, "diverged", message="the loss is nan at step 7"))
        elif (cell.row, cell.column) == ("with affine", "G=8"):
            records.append(record_of(cell, None, "failed", message="out of <memory>"))
        else:
            records.append(record_of(cell, 0.9 + 0.002 * (7 * index % 11)))
    return records


def test_the_table_is_as_the_golden_file_has_it():
    plan = plan_of("table5", seeds=2, epochs=20)
    assert table_markdown(plan, some_records(plan)) == (DATA / "table5-digits.md").read_text("utf-8")
    assert table_csv(plan, some_records(plan)) == (DATA / "table5-digits.csv").read_text("utf-8")


def test_diverged_failed_and_missing_runs_are_in_the_table_and_named():
    plan = plan_of("table5", seeds=2)
    records = some_records(plan)
    figures = {(one.row, one.column): one for one in figures_of(plan, records)}
    six = figures["with affine", "G=6"]
    assert (six.diverged, min(six.values), len(six.values)) == (1, 0.1, 2)
    assert six.mean == pytest.approx(sum(six.values) / 2)
    assert figures["with affine", "G=8"].values == ()
    assert figures["without affine", "G=8"].kind == "wilson"
    text = table_markdown(plan, records)
    assert "1 of 2 diverged" in text
    assert text.count("DIVERGED, counted as chance") == 2
    assert text.count("FAILED: ") == 2
    assert "out of &lt;memory&gt;" in text
    assert "INCOMPLETE: 3 of 20 runs" in text
    all_nan = [record_of(cell, None, "diverged", message="nan") for cell in make_cells(plan)]
    assert "| diverged (10) |" in table_markdown(plan, all_nan)


def test_on_another_data_set_the_papers_figures_are_marked_and_on_its_own_they_are_not():
    digits, cifar = plan_of("table5"), plan_of("table5", "cifar10")
    text = table_markdown(digits, [record_of(cell, 0.99) for cell in make_cells(digits)])
    assert text.count("paper, CIFAR-10, another data set") == 2
    assert text.count("paper, CIFAR-100, another data set") == 2
    assert "ratio" not in text
    text = table_markdown(cifar, [record_of(cell, 0.93) for cell in make_cells(cifar)])
    assert "another data set" not in text
    assert "CIFAR-100" not in text
    assert "93.532" in text
    assert "on the same data set" in text


def test_one_seed_is_said_to_tell_nothing_of_the_spread_and_several_have_a_median():
    one, three = plan_of("groups", seeds=1), plan_of("groups", seeds=3)
    text = table_markdown(one, [record_of(cell, 0.97) for cell in make_cells(one)])
    assert "nothing of the spread between seeds" in text
    assert "median" not in text
    values = {0: 0.90, 1: 0.99, 2: 0.98}
    text = table_markdown(three, [record_of(cell, values[cell.seed]) for cell in make_cells(three)])
    assert "Student's t over seeds" in text
    assert "Wilson" not in text
    assert "here, median | 98.00 |" in text


def test_the_metric_is_the_grids_own():
    for name, value in (("groups", 0.5), ("mimic", 0.75)):
        plan = plan_of(name)
        cell = make_cells(plan)[0]
        record = record_of(cell, 0.5, best=Share(value=0.75, low=0.7, high=0.8, images=359))
        figure = figures_of(plan, [record])[0]
        assert figure.mean == value
        assert (figure.low, figure.high) == ((0.7, 0.8) if name == "mimic" else (0.48, 0.51))


def test_csv_and_json_load_and_agree_with_each_other_and_the_markdown_is_a_table():
    plan = plan_of("table7", seeds=2)
    records = [record_of(cell, 0.9 + cell.seed / 50) for cell in make_cells(plan)]
    lines = list(csv.DictReader(io.StringIO(table_csv(plan, records))))
    document = json.loads(json.dumps(table_object(plan, records), allow_nan=False))
    assert len(lines) == len(document["figures"]) == 6
    for line, figure in zip(lines, document["figures"]):
        assert float(line["top1_mean_percent"]) == pytest.approx(100 * figure["mean"], abs=1e-3)
        assert (line["row"], line["column"]) == (figure["row"], figure["column"])
    html = MarkdownIt("commonmark").enable("table").render(table_markdown(plan, records))
    assert html.count("<tr>") == 1 + 2 * (1 + 1 + 2)
    assert msgspec.convert(document["plan"], Plan) == plan


# The folder


def test_a_folder_goes_on_with_its_own_plan_only(tmp_path):
    folder = tmp_path / "grid"
    open_grid_folder(folder, plan_of("table5", seeds=1, milestones=(3, 5)))
    open_grid_folder(folder, plan_of("table5", seeds=4, milestones=(3, 5)))
    assert load_grid_folder(folder)[0].seeds == 4
    with pytest.raises(UsageError, match="epochs None, not 3"):
        open_grid_folder(folder, plan_of("table5", milestones=(3, 5), epochs=3))
    with pytest.raises(UsageError, match="grid table5, not table6"):
        open_grid_folder(folder, plan_of("table6", milestones=(3, 5)))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine").write_text("mine")
    with pytest.raises(UsageError, match="holds no grid"):
        open_grid_folder(tmp_path / "other", plan_of("table5"))
    with pytest.raises(FinetDeployError, match=r"no plan\.json"):
        load_grid_folder(tmp_path / "other")


def test_records_that_are_cut_or_wrong_are_named(tmp_path):
    plan = plan_of("groups")
    open_grid_folder(tmp_path, plan)
    cell = make_cells(plan)[0]
    write_record(tmp_path, cell, record_of(cell, 0.9))
    assert read_record(tmp_path, cell) == record_of(cell, 0.9)
    path = tmp_path / "records" / f"{cell.name}.json"
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"[]", b"\xff", whole.replace(b'"done"', b'"won"')):
        path.write_bytes(damaged)
        with pytest.raises(FinetDeployError, match="unreadable record") as caught:
            load_grid_folder(tmp_path)
        assert path.name in str(caught.value)


# Running, on 64 digits


class Watcher(Silent):
    def __init__(self, stop: bool = False) -> None:
        self.stop, self.notes, self.cells = stop, list[str](), list[str]()

    @contextmanager
    def __call__(self, cell: Cell, number: int, total: int) -> Iterator[Watcher]:
        self.cells.append(cell.label)
        yield self

    def note(self, text: str) -> None:
        self.notes.append(text)

    def epoch(self, report: Any) -> None:
        if self.stop:
            raise KeyboardInterrupt


@pytest.fixture
def few_digits(monkeypatch):
    def opened(name, split, **options):
        whole = open_dataset(name, split, **options)
        return Selection(whole, spread(len(whole), 64 if split == "train" else 20))

    monkeypatch.setattr("finet_deploy.reproduce.runner.open_dataset", opened)
    monkeypatch.setattr("finet_deploy.data.opening.open_dataset", opened)


def cell_of(column: str, **changes: Any) -> Cell:
    recipe = load_recipe("digits").with_overrides(
        **{"epochs": 2, "se": False, "warmup_epochs": 0.0, **changes}
    )
    return Cell(row="row", column=column, recipe=recipe)


def test_a_run_that_diverges_or_fails_is_recorded_and_the_others_go_on(few_digits, tmp_path):
    cells = [
        cell_of("diverges", norm="mimic", last_bn=False, lr=1e30),
        cell_of("fails", batch_size=512),
        cell_of("trains"),
    ]
    watcher, where = Watcher(), Where(folder=tmp_path)
    done = list(run_cells(cells, where, watcher))
    assert [one.record.status for one in done] == ["diverged", "failed", "done"]
    assert "at step" in done[0].record.message
    assert "512" in done[1].record.message
    assert done[0].record.top1(load_grid("groups")) == 0.1
    assert done[1].record.top1(load_grid("groups")) is None
    record = done[2].record
    assert record.last is not None
    assert (record.steps, record.num_classes, record.last.images) == (4, 10, 20)
    assert [read_record(tmp_path, cell) for cell in cells] == [one.record for one in done]
    assert not (run_folder(tmp_path, cells[2]) / "state.pt").exists()
    assert (run_folder(tmp_path, cells[2]) / "model.safetensors").exists()
    assert [cell.column for cell in pending_cells(tmp_path, cells)] == ["fails"]
    assert [one.done for one in done] == [1, 2, 3]
    assert done[2].left_seconds == 0 < done[0].left_seconds


def test_an_interrupted_run_is_gone_on_with_and_ends_as_if_it_had_not_been(few_digits, tmp_path):
    cell = cell_of("cell", epochs=2)
    (whole,) = run_cells([cell], Where(folder=tmp_path / "whole"), Watcher())
    where = Where(folder=tmp_path / "parts")
    (run_folder(where.folder, cell)).mkdir(parents=True)
    (run_folder(where.folder, cell) / ".half.tmp").write_text("left by a process that was killed")
    with pytest.raises(KeyboardInterrupt):
        list(run_cells([cell], where, Watcher(stop=True)))
    assert pending_cells(where.folder, [cell]) == [cell]
    watcher = Watcher()
    (parts,) = run_cells([cell], where, watcher)
    assert any("resumed after step" in note for note in watcher.notes)
    ours, theirs = parts.record, whole.record
    assert (ours.last, ours.best, ours.steps) == (theirs.last, theirs.best, theirs.steps)
    first, second = (
        (run_folder(folder, cell) / "model.safetensors").read_bytes()
        for folder in (tmp_path / "whole", where.folder)
    )
    assert first == second


def test_the_command_runs_what_is_missing_and_makes_the_same_table_again(few_digits, capsys, tmp_path):
    folder = tmp_path / "groups"
    arguments = ["reproduce", "groups", "--epochs", 1, "--seeds", 1, "--no-se", "-o", folder]
    assert "is what the grid" not in run_cli(capsys, *arguments, "--dry-run")[2]
    arguments.remove("--no-se")
    status, out, err = run_cli(capsys, *arguments, "--only", "G=1", "--only", "G=2", "--limit-cells", 1)
    assert status == 0, err
    assert "INCOMPLETE: 3 of 4" in out
    assert "[1/1] Finet small SE, G=1, seed 0: top-1" in err
    status, out, err = run_cli(capsys, *arguments, "--only", "G=1", "--only", "G=2", "--json")
    assert status == 0, err
    assert [record["column"] for record in json.loads(out)["records"]] == ["G=1", "G=2"]
    assert "[1/1] Finet small SE, G=2, seed 0: top-1" in err
    assert "G=1, seed 0: epoch" not in err
    before = {path.name: path.read_bytes() for path in folder.glob("table.*")}
    assert set(before) == {"table.md", "table.csv", "table.json"}
    for path in folder.glob("table.*"):
        path.unlink()
    status, out, err = run_cli(capsys, "reproduce", "--from", folder)
    assert (status, out.strip()) == (0, before["table.md"].decode().strip())
    assert {path.name: path.read_bytes() for path in folder.glob("table.*")} == before


def test_a_dry_run_lists_the_runs_and_their_cost_and_writes_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = ["reproduce", "groups", "--dry-run", "--seeds", 2, "--only", "G=1"]
    status, out, _ = run_cli(capsys, *arguments)
    assert status == 0
    assert "G=1, seed 0" in out and "G=1, seed 1" in out and "G=2" not in out
    assert "2 of 2 runs, about" in out
    status, out, _ = run_cli(capsys, *arguments, "--json", "--limit-cells", 1)
    found = json.loads(out)
    assert [cell["pending"] for cell in found["cells"]] == [True, False]
    assert found["cells"][0]["images"] == 20 * 22 * 64
    assert found["pending_seconds"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_failed_run_is_a_warning_and_exit_1_and_is_tried_again(few_digits, capsys, tmp_path):
    arguments = [
        "reproduce",
        "groups",
        "--batch-size",
        512,
        "--seeds",
        1,
        "--only",
        "G=1",
        "-o",
        tmp_path / "g",
    ]
    for _ in range(2):
        status, out, err = run_cli(capsys, *arguments, "-q")
        assert status == FAILED
        assert "warning: [1/1] Finet small SE, G=1, seed 0: failed: " in err
        assert "FAILED: Finet small SE, G=1, seed 0" in out


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        ([], "no grid was named"),
        (["tabel5"], "did you mean 'table5'"),
        (["table5", "--only", "G=3"], "did you mean"),
        (["table5", "--num-groups", "2"], "is what the grid table5 varies"),
        (["table7", "--model", "vgg11"], "is what the grid table7 varies"),
        (["table5", "--dataset", "cifar"], "did you mean 'cifar10'"),
        (["table5", "--seeds", "0"], "0 is not in the range"),
        (["table5", "--from", "x"], "leave GRID out"),
        (["table5", "--recipe", "papr-cifar"], "did you mean 'paper-cifar'"),
    ],
)
def test_a_wrong_call_is_one_line_exit_2_and_leaves_nothing(capsys, tmp_path, monkeypatch, arguments, hint):
    monkeypatch.chdir(tmp_path)
    assert hint in error_line(capsys, USAGE, "reproduce", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_records_is_one_line_and_exit_1(capsys, tmp_path):
    assert "no plan.json" in error_line(capsys, FAILED, "reproduce", "--from", tmp_path)
