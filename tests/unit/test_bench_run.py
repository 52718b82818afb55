"""Planning and running with a device that only pretends: audit, order, resumption, failed visits."""

from __future__ import annotations

import msgspec
import pytest

from finet_deploy.bench.plan import build_job
from finet_deploy.bench.protocol import Invalid
from finet_deploy.bench.records import read_run
from finet_deploy.bench.run import resume_bench, run_bench
from finet_deploy.bench.summary import summarise
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.report.footnotes import table_notes
from tests.bench_fakes import DEVICE, SETTINGS, PretendDevice, make_records, pretend_bundles


@pytest.fixture
def bundles(tmp_path, monkeypatch):
    """`make(name, **changes)` writes a bundle and returns its row."""
    return pretend_bundles(tmp_path, monkeypatch)


def bench(rows, tmp_path, device=None, **options):
    return run_bench(
        rows, device=device or PretendDevice(), out=tmp_path / "run", **{"preset": SETTINGS, **options}
    )


def test_every_row_runs_in_every_runtime_in_every_round_with_an_aa_row(bundles, tmp_path):
    seen = []
    run = bench([bundles("a"), bundles("b", "Bee")], tmp_path, progress=seen.append)
    assert [row.label for row in run.job.rows] == ["a", "Bee", "A/A: a"] * 2
    assert [row.artifact.runtime for row in run.job.rows] == ["onnxruntime"] * 3 + ["executorch"] * 3
    assert run.missing == ()
    assert len(run.visits) == 2 * 3 * 3
    assert [(done.done, done.total, done.problem) for done in seen] == [(n + 1, 18, None) for n in range(18)]
    for comparison in summarise(run):
        assert [row.verdict for row in comparison.rows] == ["baseline", "not distinguishable"]
        assert comparison.rows[1].ratio.value == 1.0
        assert comparison.noise_floor == 1.0


def test_the_run_folder_moves_with_its_bundles_and_tells_no_absolute_path(bundles, tmp_path):
    bench([bundles("a")], tmp_path)
    assert str(tmp_path).encode() not in (tmp_path / "run" / "job.json").read_bytes()


def test_the_input_that_is_timed_is_a_photograph(bundles, tmp_path):
    job = bench([bundles("a")], tmp_path).job
    assert job.rows[0].golden.timed_input == "photo_0"
    assert job.rows[0].golden.output_limits == {"photo_0": 1e-5, "noise_0": 1e-5}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"fused": False}, "different degrees of fusion.*fused: a; unfused: b"),
        ({"normalization_ops": 3}, "fused: a; fused, 3 normalization ops left: b"),
        ({"shape": (1, 3, 9, 9)}, "different input shapes.*1x3x8x8: a; 1x3x9x9: b"),
        ({"dtype": "int8"}, "different precisions.*float32: a; int8: b"),
    ],
)
def test_unlike_rows_are_refused_by_name_before_anything_is_written(bundles, tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        bench([bundles("a"), bundles("b", **changes)], tmp_path)
    assert not (tmp_path / "run").exists()


def test_precision_may_be_compared_on_purpose_and_then_each_row_says_what_it_is(bundles, tmp_path):
    rows = [bundles("a", "net"), bundles("b", "net", dtype="int8")]
    run = bench(rows, tmp_path, mixed_precision=True, runtimes=["executorch"])
    assert [row.label for row in run.job.rows] == ["net (float32)", "net (int8)", "A/A: net (float32)"]
    limits = [row.golden.output_limits for row in run.job.rows[:2]]
    assert limits[0] == {"photo_0": 1e-5, "noise_0": 1e-5}
    assert limits[1] == {"photo_0": 0.02, "noise_0": 0.04}  # twice what the export measured
    (comparison,) = summarise(run)
    assert comparison.precision == "mixed precision"
    assert [row.row.label for row in comparison.rows] == ["net (float32)", "net (int8)"]
    notes = " ".join(table_notes(comparison))
    assert "different precision stand in this table on purpose" in notes


def test_fusion_may_be_compared_on_purpose_and_then_each_row_says_what_it_is(bundles, tmp_path):
    rows = [bundles("a", "net", fused=False), bundles("b", "net")]
    run = bench(rows, tmp_path, mixed_fusion=True, runtimes=["executorch"])
    assert [row.label for row in run.job.rows] == ["net (unfused)", "net (fused)", "A/A: net (unfused)"]
    assert [comparison.fusion for comparison in summarise(run)] == ["mixed"]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"threads": 0}, "--threads 0.*use 1 or more"),
        ({"threads": 3}, "has 2 CPUs.*use 1 to 2"),
        ({"runtimes": ["onnxruntim"]}, "no file for runtime 'onnxruntim'.*did you mean 'onnxruntime'"),
        ({"preset": "nromal"}, "did you mean 'normal'"),
    ],
)
def test_impossible_options_are_refused(bundles, tmp_path, options, message):
    with pytest.raises(UsageError, match=message):
        bench([bundles("a")], tmp_path, **options)
    assert not (tmp_path / "run").exists()


def test_no_bundle_two_equal_names_a_missing_format_and_a_failed_certificate_are_refused(bundles, tmp_path):
    with pytest.raises(UsageError, match="nothing to measure"):
        bench([], tmp_path)
    a = bundles("a")
    with pytest.raises(UsageError, match=r"two rows are called 'a'.*label"):
        bench([a, bundles("b", "a")], tmp_path)
    with pytest.raises(UsageError, match="no file for runtime 'executorch' in only_onnx"):
        bench([a, bundles("only_onnx", formats={"onnx": "onnxruntime"})], tmp_path)
    with pytest.raises(FinetDeployError, match="certificate did not pass"):
        bench([a, bundles("bad", passed=False)], tmp_path)


def test_an_interrupted_run_resumes_with_the_missing_visits_only(bundles, tmp_path):
    rows = [bundles("a"), bundles("b")]
    with pytest.raises(KeyboardInterrupt):
        bench(rows, tmp_path, PretendDevice(interrupt_at=4))
    assert read_run(tmp_path / "run").missing == tuple(range(4, 18))
    device = PretendDevice()
    run = bench(rows, tmp_path, device, resume=True)
    assert device.visited == list(range(4, 18))
    assert run.missing == ()
    assert [mark.visits_done for mark in run.resumed] == [4]
    idle = PretendDevice()
    assert resume_bench(tmp_path / "run", device=idle).resumed == run.resumed
    assert idle.visited == []


def test_resuming_another_job_or_on_another_device_is_refused_by_difference(bundles, tmp_path):
    rows = [bundles("a")]
    with pytest.raises(KeyboardInterrupt):
        bench(rows, tmp_path, PretendDevice(interrupt_at=1))
    with pytest.raises(UsageError, match=r"another one.*rows\[0\]\.threads.*differ"):
        bench(rows, tmp_path, threads=2, resume=True)
    with pytest.raises(UsageError, match=r"settings\.rounds.*visits.*differ"):
        bench(rows, tmp_path, preset=msgspec.structs.replace(SETTINGS, rounds=4), resume=True)
    other = PretendDevice(info=msgspec.structs.replace(DEVICE, cpu_count=8))
    with pytest.raises(UsageError, match="another device: cpu_count differ"):
        resume_bench(tmp_path / "run", device=other)
    with pytest.raises(UsageError, match=r"output already exists.*resume"):
        bench(rows, tmp_path)


def test_resume_of_nothing_starts_a_new_run(bundles, tmp_path):
    assert bench([bundles("a")], tmp_path, resume=True).missing == ()


def test_a_file_that_changed_since_the_run_was_planned_is_refused(bundles, tmp_path):
    row = bundles("a")
    with pytest.raises(KeyboardInterrupt):
        bench([row], tmp_path, PretendDevice(interrupt_at=1))
    (row.bundle / "model.onnx").write_bytes(b"other")
    with pytest.raises(FinetDeployError, match=r"not the one that the job names.*model\.onnx"):
        resume_bench(tmp_path / "run", device=PretendDevice())


def test_a_visit_that_fails_is_kept_with_its_reason_and_the_run_goes_on(bundles, tmp_path):
    def dies(request):
        return [
            Invalid(visit=request.visit.index, reason="killed by SIGKILL", phase="load", signal="SIGKILL")
        ]

    problems = []
    device = PretendDevice({"b": dies})
    rows = [bundles("a"), bundles("b")]
    run = bench(rows, tmp_path, device, progress=lambda done: problems.append(done.problem))
    assert sum(problem is not None for problem in problems) == 2 * 3
    comparison = summarise(run)[0]
    assert comparison.rows[1].images_per_second is None
    assert comparison.rows[1].verdict == "no data"
    assert [visit.round for visit in comparison.rows[1].invalid] == [0, 1, 2]
    assert comparison.rows[0].valid_visits == 3


def test_a_true_difference_is_called_and_one_within_the_noise_is_not(bundles, tmp_path):
    def noisy(mean_ms):
        def answer(request):
            spread = 1 + 0.02 * ((request.visit.round * 7 + request.visit.position) % 3 - 1)
            return make_records(request.visit, request.row, [int(mean_ms * 1e6 * spread)] * 40)

        return answer

    answers = {"a": noisy(10), "A/A: a": noisy(10), "fast": noisy(5), "slow": noisy(20), "like": noisy(10.1)}
    rows = [bundles(name) for name in ("a", "fast", "slow", "like")]
    run = bench(rows, tmp_path, PretendDevice(answers), preset=msgspec.structs.replace(SETTINGS, rounds=7))
    found = {row.row.label: row.verdict for row in summarise(run)[0].rows}
    assert found == {"a": "baseline", "fast": "faster", "slow": "slower", "like": "not distinguishable"}


def test_without_an_aa_row_nothing_is_claimed(bundles, tmp_path):
    device = PretendDevice({"b": 1_000_000})
    settings = msgspec.structs.replace(SETTINGS, aa_row=False)
    run = bench([bundles("a"), bundles("b")], tmp_path, device, preset=settings)
    assert [row.verdict for row in summarise(run)[0].rows] == ["baseline", "no noise floor"]


def test_the_same_bundles_and_options_give_the_same_job(bundles, tmp_path):
    rows = [bundles("a"), bundles("b")]
    options = {
        "device": DEVICE,
        "settings": SETTINGS,
        "threads": 1,
        "runtimes": None,
        "folder": tmp_path / "run",
    }
    one, two = build_job(rows, **options), build_job(rows, **options)
    assert msgspec.structs.replace(one, created_utc="") == msgspec.structs.replace(two, created_utc="")
