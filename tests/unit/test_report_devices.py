"""Runs of several devices: what shares a table, what may not, and what is said of it."""

from __future__ import annotations

import msgspec
import pytest

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.report import FORMATS, load_runs, render_markdown
from tests.bench_fakes import DEVICE, SETTINGS, make_job, make_row, make_run


def on(tmp_path, name, changes=None, **device):
    made = [make_row("onnxruntime/0", label="net")]
    job = make_job(
        made,
        msgspec.structs.replace(SETTINGS, **(changes or {})),
        device=msgspec.structs.replace(DEVICE, name=name, **device),
    )
    folder = tmp_path / f"{name}{len(list(tmp_path.iterdir()))}"
    return make_run(folder, job, {made[0].id: 10.0}).folder


def test_mixed_protocols_in_one_table_are_refused_with_the_differences_listed(tmp_path):
    one = on(tmp_path, "a")
    two = on(tmp_path, "b", {"preset": "paper", "statistic": "mean", "timed_min_runs": 9})
    expected = (
        rf"different protocols.*timed_min_runs: 5 \({one}\), 9 \({two}\); statistic: median \({one}\), mean \({two}\); "
        r"report them one by one, or with --apart"
    )
    with pytest.raises(UsageError, match=expected) as caught:
        load_runs([one, two])
    assert "rounds" not in str(caught.value) and "preset:" not in str(caught.value)


def test_mixed_protocols_apart_share_no_table_and_say_so_in_every_format(tmp_path):
    folders = [on(tmp_path, "a"), on(tmp_path, "b", {"rounds": 4}), on(tmp_path, "c")]
    runs = load_runs(folders, apart=True)
    text = render_markdown(runs)
    assert "| network | a, 1 thread, test | c, 1 thread, test |" in text
    assert "| b, 1 thread" not in text
    for name in ("md", "tex", "json"):
        assert f"rounds: 3 ({folders[0]}, {folders[2]}), 4 ({folders[1]})" in printed_path(
            FORMATS[name].render(runs)
        )


def printed_path(text):
    for written, plain_text in (
        ("\\_", "_"),
        ("{\\ttfamily\\char95}", "_"),
        ("\\allowbreak{}", ""),
        ("{}", ""),
    ):
        text = text.replace(written, plain_text)
    return text


@pytest.mark.parametrize(
    "names, changes, device",
    [
        (("a", "a"), {"rounds": 4}, {}),  # two runs of one device have no common table
        (("a", "b"), {"preset": "other", "description": "names"}, {}),
        (("a", "b"), {"rounds": 4}, {"emulated": True}),
    ],
)
def test_what_shares_no_table_or_no_difference_is_not_refused(tmp_path, names, changes, device):
    assert len(load_runs([on(tmp_path, names[0]), on(tmp_path, names[1], changes, **device)])) == 2


def test_columns_that_differ_in_file_or_version_say_so_below_the_table(tmp_path):
    made = [make_row("onnxruntime/0", label="net", artifact__sha256="0" * 64)]
    job = make_job(made, device=msgspec.structs.replace(DEVICE, name="b"))
    runs = [*load_runs([on(tmp_path, "a")]), make_run(tmp_path / "other", job, {made[0].id: 10.0})]
    text = render_markdown(runs)
    assert "Not the same file in every column (SHA-256 differs): net." in text
    assert "runtime's version" not in text
    newer = make_run(
        tmp_path / "newer", job, {made[0].id: 10.0}, {n: {"runtime_version": "2.0"} for n in range(3)}
    )
    notes = "The columns differ in the runtime's version. a, 1 thread, test: 1.2.3; b, 1 thread, test: 2.0."
    assert notes in render_markdown([runs[0], newer])
    assert "Not the same file" not in render_markdown(load_runs([on(tmp_path, "a"), on(tmp_path, "c")]))


def test_two_rows_of_one_name_both_stand_in_the_table_of_devices(tmp_path):
    made = [make_row("onnxruntime/0", label="net"), make_row("onnxruntime/1", label="net")]
    runs = [
        make_run(
            tmp_path / name,
            make_job(made, device=msgspec.structs.replace(DEVICE, name=name)),
            {"onnxruntime/0": 10.0, "onnxruntime/1": 40.0},
        )
        for name in ("a", "b")
    ]
    table = render_markdown(runs).split("\n## ")[1]
    assert "| net | 99" in table and "| net (again) | 24" in table


def test_a_folder_of_run_folders_stands_for_all_of_them(tmp_path):
    for name in ("b", "a"):
        on(tmp_path, name)
    (tmp_path / "notes.txt").write_text("mine")
    assert [run.job.device.name for run in load_runs([tmp_path])] == ["a", "b"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(FinetDeployError, match=r"no job\.json in this folder"):
        load_runs([tmp_path / "empty"])
