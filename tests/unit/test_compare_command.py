"""`finet-deploy compare`: what it prints, how it ends, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import msgspec
import pytest

from finet_deploy.compare import MARKER
from finet_deploy.json_files import encode_json
from finet_deploy.runner.cost import CostTable
from tests.bench_fakes import SETTINGS
from tests.cli import FAILED, USAGE, error_line, run_cli
from tests.compare_runs import AA, written_run
from tests.unit.test_compare import cost_row, net, ns

GOLDEN = Path(__file__).parents[1] / "data" / "compare" / "comment.md"
HOSTILE = "<script>alert(1)</script> | **net**\n[x](http://example.invalid)"
THREE = (-1, 3, -4, 5, 0, -2, 2, 4, -3, 1)


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Run folders `base`, and `slower`, `faster` and `same` to compare it with."""
    monkeypatch.chdir(tmp_path)
    base = net(10, reference=5) | {"gone": ("g", ns(7)), HOSTILE: ("h1", ns(20, THREE))}
    written_run(Path("base"), base, artifact__bytes={"net": 6_900_000})
    for name, level in (("slower", 10.4), ("faster", 9.6), ("same", 10.0)):
        hostile = [None, *ns(20, THREE[::-1])[1:]]
        new = net(level, "new", reference=5) | {"come": ("c", ns(7)), HOSTILE: ("h2", hostile)}
        sizes = {"net": 7_000_000, HOSTILE: 5}
        written_run(Path(name), new, artifact__bytes=sizes)
    return tmp_path


@pytest.mark.parametrize(
    ("new", "status", "verdict"), [("slower", 1, "slower"), ("faster", 0, "faster"), ("same", 0, "unchanged")]
)
def test_the_exit_status_is_1_for_a_regression_and_0_otherwise(runs, capsys, new, status, verdict):
    found, out, err = run_cli(capsys, "compare", "base", new)
    assert found == status
    line = next(line for line in out.splitlines() if line.startswith("net "))
    assert f"  {verdict}  " in line
    assert out.rstrip().splitlines()[-1].startswith("Regression: " if status else "No regression found: ")
    assert err == ""


def test_the_comment_for_a_pull_request_is_the_golden_one(runs, capsys):
    """Made again with: GOLDEN.write_text(out). Hostile names show as themselves."""
    status, out, _ = run_cli(capsys, "compare", "base", "slower", "--format", "md")
    assert status == FAILED
    assert out == GOLDEN.read_text("utf-8")
    assert out.startswith(MARKER + "\n")
    assert "<script" not in out
    assert out.count("<details>") == out.count("</details>") == 1
    inside = out[out.index("<details>") :]
    assert "</summary>\n\n|" in inside  # Markdown within HTML needs the blank line


def test_json_is_one_document_with_the_verdicts_and_what_they_stand_on(runs, capsys):
    status, out, _ = run_cli(capsys, "compare", "base", "slower", "--json")
    found = json.loads(out)
    assert status == FAILED
    assert (found["schema_version"], found["failed"]) == (1, True)
    assert found["verdicts"] == {"slower": 1, "unchanged": 2, "missing": 1, "new": 1}
    row = next(row for row in found["rows"] if row["network"] == "net")
    assert row["ratio"]["value"] == pytest.approx(1 / 1.04, rel=2e-3)
    assert row["evidence"] == "referenced"
    assert row["p_adjusted"] <= 0.05 < row["noise_floor"]
    assert found["differences"] == []


def test_what_matters_and_what_fails_can_be_said(runs, capsys):
    assert run_cli(capsys, "compare", "base", "slower", "--threshold", "5")[0] == 0
    assert run_cli(capsys, "compare", "base", "slower", "--fail-on", "")[0] == 0
    assert run_cli(capsys, "compare", "base", "same", "--fail-on", "speed,size")[0] == FAILED


def test_two_rows_of_one_run_are_pairs(runs, capsys):
    columns = {"old": ("a", ns(10)), AA + "old": ("a", ns(10, THREE)), "new": ("b", ns(10.5, THREE))}
    written_run(Path("both"), columns)
    status, out, _ = run_cli(capsys, "compare", "both", "--rows", "old", "new")
    assert status == FAILED
    assert "old → new" in out
    assert "pairs of rounds" in out
    assert run_cli(capsys, "compare", "both", "--rows", "new", "old")[0] == 0


def test_several_runs_a_side(runs, capsys):
    shutil.copytree("slower", "again")
    status, out, _ = run_cli(capsys, "compare", "base", "slower", "--new", "again", "--json")
    assert status == FAILED
    assert json.loads(out)["new"] == ["slower", "again"]
    # One run says slower, the other does not: that is no evidence, however sure each is of itself.
    assert run_cli(capsys, "compare", "base", "slower", "--new", "same")[0] == 0


def test_costs_are_read_and_labelled_as_emulated(runs, capsys):
    for name, instructions in (("base", 1_000_000), ("slower", 1_100_000)):
        job = json.loads((Path(name) / "job.json").read_text())
        row = cost_row(job["rows"][0]["artifact"]["sha256"], instructions)
        table = CostTable(emulator="qemu", runner_key="k", rows=(row,))
        (Path(name) / "cost.json").write_bytes(encode_json(table))
    _, out, _ = run_cli(
        capsys, "compare", "base", "slower", "--base-cost", "base", "--new-cost", "slower/cost.json"
    )
    assert "ARM instructions on cortex-a76 (emulated) 1,000,000 → 1,100,000 (+10.00%)" in out


@pytest.mark.parametrize(
    ("arguments", "status", "hint"),
    [
        (["base"], USAGE, "nothing to compare BASE with"),
        (["base", "--new", "same"], USAGE, "nothing to compare BASE with"),
        (["base", "absent"], FAILED, "no job.json"),
        (["base", "same", "--threshold", "nan"], USAGE, "--threshold nan"),
        (["base", "same", "--threshold", "-1"], USAGE, "--threshold -1"),
        (["base", "same", "--drift", "inf"], USAGE, "--drift inf"),
        (["base", "same", "--fail-on", "sped"], USAGE, "use some of speed, certificate, cost"),
        (["base", "same", "--rows", "net", "nett"], USAGE, "no row 'nett' in NEW"),
        (["base", "same", "--base-bundles", "x"], USAGE, "add --confirm"),
        (["base", "same", "--confirm-rounds", "1"], USAGE, "1 is not in the range"),
        (["base", "quick"], USAGE, "different protocols: warmup_min_runs 5 against 1"),
        (["base", "cut"], FAILED, "not a run record"),
        (["base", "same", "--base-cost", "base/job.json"], FAILED, "not a table of costs"),
        (["base", "slower", "--confirm"], FAILED, "say where it is with --base-bundles"),
        (["base", "slower", "--confirm", "--confirm-dir", "base"], USAGE, "output already exists"),
    ],
)
def test_a_wrong_call_and_runs_that_cannot_be_compared_are_one_line(runs, capsys, arguments, status, hint):
    written_run(Path("quick"), net(10), settings=msgspec.structs.replace(SETTINGS, aa_row=True))
    written_run(Path("cut"), net(10))
    (Path("cut") / "records.jsonl").write_bytes(b'{"type": "end"}\n' * 2)
    assert hint in error_line(capsys, status, "compare", *arguments)


def test_nothing_is_written_unless_something_is_confirmed(runs, capsys):
    before = sorted(Path().rglob("*"))
    status, _, err = run_cli(capsys, "compare", "base", "same", "--confirm")
    assert status == 0
    assert "nothing to confirm" in err
    assert sorted(Path().rglob("*")) == before


def test_many_rows_fit_a_comment_and_say_what_is_left_out(runs, capsys):
    latencies = {f"network {n} {'with a long name ' * 8}": [10_000_000 + n, 10_100_000] for n in range(150)}
    for name, size in (("many", 1), ("more", 2)):
        columns = {label: (f"{name} {label}", values) for label, values in latencies.items()}
        written_run(Path(name), columns, artifact__bytes=dict.fromkeys(columns, size))
    status, out, _ = run_cli(capsys, "compare", "many", "more", "--format", "md")
    assert status == 0
    assert 40_000 < len(out.encode()) < 65_536
    assert out.count("more lines are not shown: see `--json`.") == 3
    assert out.count("<details>") == out.count("</details>") == 1
