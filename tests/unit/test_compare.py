"""Verdicts: what each kind of evidence can say, what it cannot, and what is not compared at all."""

from __future__ import annotations

import msgspec
import pytest

from finet_deploy.bench.protocol import Reading
from finet_deploy.bench.records import VisitResult
from finet_deploy.bench.settings import load_preset
from finet_deploy.compare import Options, compare_sides, load_side
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.runner.cost import CostRow
from tests.bench_fakes import DEVICE, SETTINGS
from tests.compare_runs import AA, simulated_side, written_run

# Off the level, in thousandths: three rows whose rounds do not go together.
ONE = (0, 4, -3, 2, -5, 1, 3, -2, 5, -4)
TWO = (3, -2, 1, -4, 2, 5, -5, 0, -1, 4)
THREE = (-1, 3, -4, 5, 0, -2, 2, 4, -3, 1)
REF = (2, 2, -2, -2, 1, -1, 4, -4, 0, 0)


def ns(level, parts=ONE):
    return [round(level * 1e6 * (1 + part / 1000)) for part in parts]


def net(level, file="old", reference=None, parts=(ONE, TWO)):
    """A row, its A/A row and perhaps a row of a file that is on both sides."""
    found = {"net": (file, ns(level, parts[0])), AA + "net": (file, ns(level, parts[1]))}
    return found | ({"ref": ("ref", ns(reference, REF))} if reference else {})


def verdict_of(base, new, network="net", options=None, **changes):
    rows = compare_sides(
        simulated_side("BASE", base), simulated_side("NEW", new, **changes), options=options
    ).rows
    return next(row for row in rows if row.network == network)


def paired(factor, aa=TWO, options=None, new_parts=THREE):
    columns = {"old": ("a", ns(10)), AA + "old": ("a", ns(10, aa)), "new": ("b", ns(10 * factor, new_parts))}
    side = simulated_side("BASE", columns)
    return compare_sides(side, None, named=[("old", "new")], options=options).rows[0]


@pytest.mark.parametrize(("factor", "verdict"), [(1.03, "slower"), (1, "unchanged"), (0.97, "faster")])
def test_in_one_interleaved_run_a_change_of_three_percent_is_called(factor, verdict):
    row = paired(factor)
    assert (row.verdict, row.evidence) == (verdict, "paired")
    assert row.ratio.value == pytest.approx(1 / factor, rel=2e-3)
    assert row.failures == (("speed",) if verdict == "slower" else ())


def test_a_change_below_the_noise_floor_is_not_called_however_sure_it_is():
    disturbed = tuple(20 + part for part in TWO)  # the same file under two names seems to differ by 2 %
    row = paired(1.03, aa=disturbed)
    assert row.p_adjusted < 0.05
    assert 0.01 < 1 / row.ratio.value - 1 < 0.022  # beyond the threshold
    assert row.verdict == "unchanged"
    assert "below the noise floor" in row.reason
    assert paired(1.06, aa=disturbed).verdict == "slower"


def test_a_change_below_the_threshold_is_not_called():
    assert paired(1.03, options=Options(threshold=0.05)).reason == "below the threshold of 5.0%"
    assert paired(1.03, options=Options(threshold=0.02)).verdict == "slower"


def test_without_an_aa_row_there_is_no_noise_floor_and_no_claim():
    columns = {"old": ("a", ns(10)), "new": ("b", ns(20, THREE))}
    row = compare_sides(simulated_side("BASE", columns), None, named=[("old", "new")]).rows[0]
    assert row.verdict == "cannot tell"
    assert "no noise floor" in row.reason
    assert not row.failures


def test_when_the_noise_would_hide_ten_percent_nothing_is_said():
    wild = tuple(60 * part for part in THREE)
    row = paired(1.03, new_parts=wild)
    assert row.verdict == "cannot tell"
    assert "the noise would hide a change of" in row.reason


def test_two_runs_with_an_unchanged_row_see_past_what_the_machine_did():
    # The machine is 20 % slower in NEW. `net` is 3 % slower still in one case, and not changed in the other.
    slower = verdict_of(net(10, reference=5), net(12 * 1.03, "new", reference=6))
    assert (slower.verdict, slower.evidence) == ("slower", "referenced")
    assert slower.ratio.value == pytest.approx(1 / 1.03, rel=2e-3)
    same = verdict_of(net(10, reference=5), net(12, "new", reference=6))
    assert same.verdict == "unchanged"


def test_what_the_machine_did_is_told():
    changes = compare_sides(
        simulated_side("BASE", net(10, reference=5)), simulated_side("NEW", net(12, "new", reference=6))
    )
    (drift,) = changes.drifts
    assert drift.files == ("ref",)
    assert drift.ratio.value == pytest.approx(5 / 6, rel=1e-6)
    ref = next(row for row in changes.rows if row.network == "ref")
    assert (ref.verdict, ref.evidence, ref.ratio) == ("unchanged", "same file", None)
    assert changes.family == 1


def test_a_row_of_another_runtime_version_is_judged_and_tells_nothing_of_the_machine():
    row = verdict_of(net(10, reference=5), net(10, "new", reference=5), load__runtime_version="2.0")
    assert row.evidence == "apart"
    upgraded = verdict_of(net(10), net(20), load__runtime_version="2.0")
    assert (upgraded.verdict, upgraded.evidence) == ("slower", "apart")


def test_a_device_that_was_busy_and_a_run_that_is_not_complete_are_told():
    base, new = simulated_side("BASE", net(10)), simulated_side("NEW", net(10))
    run = new.runs[0]
    del run.visits[len(run.job.visits) - 1]
    for index, result in run.visits.items():
        start, *others = result.records
        busy = msgspec.structs.replace(start.state, load_average_1min=Reading(value=9.0))
        records = (msgspec.structs.replace(start, state=busy), *others)
        run.visits[index] = VisitResult(index, records)
    warnings = compare_sides(base, new).warnings
    assert warnings[0].startswith("NEW, NEW-0: BUSY: more was running")
    assert warnings[1] == "NEW, NEW-0: INCOMPLETE: 1 of 20 visits are missing."
    assert len(warnings) == 2


def test_a_row_can_be_said_to_be_unchanged_though_its_file_is_not():
    base = net(10) | {"yardstick": ("y1", ns(5, REF)), AA + "yardstick": ("y1", ns(5, THREE))}
    new = net(12 * 1.03, "new") | {"yardstick": ("y2", ns(6, REF)), AA + "yardstick": ("y2", ns(6, THREE))}
    sides = simulated_side("BASE", base), simulated_side("NEW", new, load__runtime_version="2.0")
    assert {row.evidence for row in compare_sides(*sides).rows} == {"apart"}
    changes = compare_sides(*sides, said=["yardstick"])
    rows = {row.network: row for row in changes.rows}
    assert (rows["net"].verdict, rows["net"].evidence) == ("slower", "referenced")
    assert rows["net"].ratio.value == pytest.approx(1 / 1.03, rel=2e-3)
    assert (rows["yardstick"].verdict, rows["yardstick"].evidence) == ("unchanged", "said")
    assert changes.drifts[0].ratio.value == pytest.approx(5 / 6, rel=1e-6)
    base["ref"], new["ref"] = (
        ("ref", ns(5, REF)),
        ("ref", ns(5, REF)),
    )  # the same file, which is not what was said
    both = simulated_side("BASE", base), simulated_side("NEW", new)
    assert compare_sides(*both).drifts[0].files == ("ref",)
    assert compare_sides(*both, said=["yardstick"]).drifts[0].files == ("yardstick",)
    with pytest.raises(UsageError, match="no row 'yardstik' in BASE.*did you mean 'yardstick'"):
        compare_sides(*sides, said=["yardstik"])
    with pytest.raises(UsageError, match="its rounds are pairs"):
        compare_sides(sides[0], None, named=[("net", "yardstick")], said=["net"])


def test_two_runs_with_nothing_in_common_allow_for_the_machine():
    row = verdict_of(net(10), net(10.5, "new"))
    assert (row.verdict, row.evidence) == ("cannot tell", "apart")
    assert "no row in common tells what the machine did" in row.reason
    assert row.suspect
    assert not row.failures
    assert verdict_of(net(10), net(12, "new")).verdict == "slower"  # 20 % is more than the machine is allowed
    assert verdict_of(net(10), net(12, "new"), options=Options(drift=0.3)).verdict == "cannot tell"
    assert verdict_of(net(10), net(10.5, "new"), options=Options(drift=0.0)).verdict == "slower"


def test_suspected_is_what_might_be_slower_and_nothing_else():
    assert verdict_of(net(10), net(10.5, "new")).suspect
    assert not verdict_of(net(10), net(9.5, "new")).suspect
    assert not verdict_of(net(10), net(10.05, "new")).suspect  # below the threshold
    assert paired(1.03).suspect


def test_what_is_no_longer_there_and_what_is_new_is_told_and_fails_nothing():
    base = net(10, reference=5) | {"gone": ("g", ns(7))}
    new = net(10, "new", reference=5) | {"come": ("c", ns(7))}
    changes = compare_sides(simulated_side("BASE", base), simulated_side("NEW", new))
    verdicts = {row.network: row.verdict for row in changes.rows}
    assert {row.reason for row in changes.rows} == {None}
    assert verdicts == {"net": "unchanged", "ref": "unchanged", "gone": "missing", "come": "new"}
    assert not changes.failed
    strict = compare_sides(
        simulated_side("BASE", base), simulated_side("NEW", new), options=Options(fail_on=("missing",))
    )
    assert [row.failures for row in strict.rows if row.failures] == [("missing",)]


def test_a_row_that_runs_no_longer_is_a_regression_and_one_that_never_did_is_not():
    failed = {"net": ("new", [None] * 10), AA + "net": ("new", [None] * 10)}
    row = verdict_of(net(10), failed)
    assert (row.verdict, row.failures) == ("invalid", ("speed",))
    assert row.reason == "no valid visit in NEW"
    assert "NEW: 10 of 10 visits invalid (wrong output" in row.notes[0]
    assert verdict_of(failed, net(10)).verdict == "cannot tell"
    assert not verdict_of(failed, failed).failures


def test_a_visit_that_failed_is_left_out_and_told():
    new = net(10.3, "new", reference=5)
    new["net"] = ("new", [None, *new["net"][1][1:]])
    row = verdict_of(net(10, reference=5), new)
    assert row.verdict == "slower"
    reason = "wrong output on 'photo_0': norm-relative error 1.0e+00, limit 1.0e-05"
    assert row.notes == (f"NEW: 1 of 10 visits invalid ({reason})",)


def test_an_emulated_device_has_no_speeds_to_compare():
    emulated = msgspec.structs.replace(DEVICE, emulated=True)
    sides = [
        simulated_side(name, net(level, name, reference=5), device=emulated)
        for name, level in (("BASE", 10), ("NEW", 20))
    ]
    rows = compare_sides(*sides).rows
    assert {row.verdict for row in rows} == {"cannot tell"}
    assert "its times are no speeds" in rows[0].reason


def test_another_input_is_not_the_same_work():
    row = verdict_of(net(10), net(20, "new"), row__input_shape=(1, 3, 32, 32))
    assert row.verdict == "cannot tell"
    assert row.reason == "other input: 1x3x64x64 against 1x3x32x32"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"settings": SETTINGS}, "different protocols: warmup_min_runs 5 against 1; .*timed_min_runs 50 against 5"),
        ({"settings": load_preset("paper")}, "statistic median against mean"),
        ({"device": msgspec.structs.replace(DEVICE, cpu_model=Reading(value="Another"))}, "cpu_model Example CPU aga"),
        ({"device": msgspec.structs.replace(DEVICE, cpu_count=4)}, "cpu_count 2 against 4"),
        ({"device": msgspec.structs.replace(DEVICE, emulated=True)}, "emulated False against True"),
        ({"device": msgspec.structs.replace(DEVICE, name="R5CT")}, "no device in common: host against R5CT"),
    ],
)  # fmt: skip
def test_figures_that_do_not_mean_the_same_are_refused_with_what_differs(changes, message):
    with pytest.raises(UsageError, match=message):
        compare_sides(simulated_side("BASE", net(10)), simulated_side("NEW", net(10), **changes))


def test_runners_that_differ_are_refused_and_one_that_was_not_kept_is_told():
    with pytest.raises(UsageError, match="runner python against native"):
        compare_sides(
            simulated_side("BASE", net(10), runner="python"), simulated_side("NEW", net(10), runner="native")
        )
    changes = compare_sides(simulated_side("BASE", net(10)), simulated_side("NEW", net(10), runner="native"))
    assert [(d.what, d.base, d.new) for d in changes.differences] == [("runner", "not kept", "native")]


def test_in_what_else_the_sides_differ_is_listed():
    device = msgspec.structs.replace(DEVICE, operating_system=Reading(value="Linux 7.0"))
    changes = compare_sides(
        simulated_side("BASE", net(10)),
        simulated_side("NEW", net(10), device=device, load__runtime_version="2.0", suite="table4"),
    )
    found = {item.what: (item.base, item.new) for item in changes.differences}
    assert found == {
        "operating system": ("Linux 6.1", "Linux 7.0"),
        "onnxruntime": ("1.2.3", "2.0"),
        "suite": ("none", "table4"),
    }


def test_rows_are_told_apart_by_runtime_precision_and_threads():
    new = simulated_side("NEW", net(10, "new"), artifact__dtype="int8")
    rows = compare_sides(simulated_side("BASE", net(10)), new).rows
    assert [(row.precision, row.verdict) for row in rows] == [("float32", "missing"), ("int8", "new")]
    new = simulated_side("NEW", net(10, "new"), row__threads=2)
    assert [row.verdict for row in compare_sides(simulated_side("BASE", net(10)), new).rows] == [
        "missing",
        "new",
    ]
    new = simulated_side("NEW", net(10, "new"), runtime="executorch")
    assert [row.verdict for row in compare_sides(simulated_side("BASE", net(10)), new).rows] == [
        "missing",
        "new",
    ]


def test_rows_of_other_names_are_compared_when_they_are_named():
    sides = simulated_side("BASE", net(10, reference=5)), simulated_side("NEW", {
        "net v2": ("new", ns(11)), AA + "net v2": ("new", ns(11, TWO)), "ref": ("ref", ns(5, REF)),
    })  # fmt: skip
    (row,) = compare_sides(*sides, named=[("net", "net v2")]).rows
    assert (row.network, row.verdict, row.evidence) == ("net → net v2", "slower", "referenced")
    with pytest.raises(UsageError, match=r"no row 'net v3' in NEW.*did you mean 'net v2'"):
        compare_sides(*sides, named=[("net", "net v3")])
    with pytest.raises(UsageError, match="one side, and no rows"):
        compare_sides(sides[0], None)


def test_many_rows_are_allowed_for_together():
    """One of twenty rows that seems to differ at p = 0.02 is what chance does; alone it would be called."""
    parts = [tuple((7 * n + 3 * part * (n + 1)) % 11 - 5 for part in ONE) for n in range(20)]
    base = {f"n{n}": (f"a{n}", ns(10, part)) for n, part in enumerate(parts)} | {
        AA + "n0": ("a0", ns(10, parts[0]))
    }
    new = {f"n{n}": (f"b{n}", ns(10, part[::-1])) for n, part in enumerate(parts)}
    new["n1"] = ("b1", [x + round(0.13e6 * (1 + n % 3)) for n, x in enumerate(new["n1"][1])])
    options = Options(threshold=0, drift=0)
    alone = compare_sides(
        simulated_side("BASE", {k: v for k, v in base.items() if k in ("n0", "n1", AA + "n0")}),
        simulated_side("NEW", {"n1": new["n1"]}),
        options=options,
    )
    together = compare_sides(simulated_side("BASE", base), simulated_side("NEW", new), options=options)
    p_alone, p_together = (next(r for r in c.rows if r.network == "n1") for c in (alone, together))
    assert together.family == 20
    assert p_together.p_value == pytest.approx(p_alone.p_value)
    assert p_together.p_adjusted == pytest.approx(min(1, 20 * p_alone.p_value))


def test_properties_of_the_files_are_compared_and_what_is_worse_may_fail():
    sides = [
        simulated_side(name, net(10, name, reference=5), artifact__bytes={"net": size}, artifact__delegates={"net": n})
        for name, size, n in (("BASE", 1000, 1), ("NEW", 1100, 3))
    ]  # fmt: skip
    for kinds in ((), ("speed",), ("size",), ("size", "delegation")):
        row = next(
            row for row in compare_sides(*sides, options=Options(fail_on=kinds)).rows if row.network == "net"
        )
        assert row.failures == tuple(kind for kind in ("size", "delegation") if kind in kinds)
        facts = {fact.name: fact for fact in row.facts if fact.changed}
        assert facts.keys() == {"file bytes", "delegates"}
        assert facts["file bytes"].factor == pytest.approx(1.1)
    lost = simulated_side("NEW", net(10, "new"), artifact__delegated_share=0.99)
    all_of_it = simulated_side("BASE", net(10), artifact__delegated_share=1.0)
    assert compare_sides(all_of_it, lost, options=Options(fail_on=("delegation",))).failed
    assert not compare_sides(lost, all_of_it, options=Options(fail_on=("delegation",))).failed
    small = Options(fail_on=("size",), threshold=0.2)
    assert not compare_sides(*sides, options=small).failed


def test_a_certificate_that_no_longer_passes_is_a_regression():
    new = simulated_side(
        "NEW", net(10, "new", reference=5), row__certificate_passed={"net": False, AA + "net": False}
    )
    changes = compare_sides(simulated_side("BASE", net(10, reference=5)), new)
    assert [row.failures for row in changes.rows if row.failures] == [("certificate",)]
    assert changes.failed


def test_counted_cost_is_found_by_the_files_hash_and_fails_when_asked():
    sides = simulated_side("BASE", net(10, reference=5)), simulated_side("NEW", net(10, "new", reference=5))
    tables = []
    for side, instructions in zip(sides, (1_000_000, 1_050_000)):
        sha = side.runs[0].job.rows[0].artifact.sha256
        tables.append([cost_row(sha, instructions), cost_row("f" * 64, 5)])
    for kinds, failures in (("speed",), ()), (("speed", "cost"), ("cost",)):
        changes = compare_sides(
            *sides, base_costs=tables[0], new_costs=tables[1], options=Options(fail_on=kinds)
        )
        row = next(row for row in changes.rows if row.network == "net")
        (fact,) = [fact for fact in row.facts if fact.kind == "cost"]
        assert (fact.name, fact.emulated) == ("ARM instructions on cortex-a76 (emulated)", True)
        assert fact.factor == pytest.approx(1.05)
        assert row.failures == failures


def cost_row(sha, instructions):
    return CostRow(
        label="net", fused=True, runtime="onnxruntime", runtime_version="1", core="cortex-a76", delegates=None,
        nodes_outside=None, macs=1, artifact_sha256=sha, instructions=instructions, classes={}, output_error=0.0,
    )  # fmt: skip


def test_several_runs_a_side_count_together():
    base = simulated_side("BASE", net(10, reference=5), net(10, reference=5, parts=(TWO, THREE)))
    new = simulated_side(
        "NEW", net(10.2, "new", reference=5), net(10.2, "new", reference=5, parts=(TWO, THREE))
    )
    (row,) = [row for row in compare_sides(base, new).rows if row.network == "net"]
    assert row.verdict == "slower"
    assert row.ratio.rounds == 20


def test_folders_of_runs_are_looked_into_and_what_is_no_run_is_refused(tmp_path):
    written_run(tmp_path / "all" / "one", net(10))
    other = msgspec.structs.replace(DEVICE, name="R5CT")
    written_run(tmp_path / "all" / "two", net(10), device=other)
    side = load_side("BASE", [tmp_path / "all"])
    assert side.devices == ["host", "R5CT"]
    with pytest.raises(FinetDeployError, match=r"no job\.json in this folder"):
        load_side("BASE", [tmp_path])
    with pytest.raises(UsageError, match="a run is named twice in BASE"):
        load_side("BASE", [tmp_path / "all", tmp_path / "all" / "one"])
    (tmp_path / "all" / "one" / "records.jsonl").unlink()
    with pytest.raises(FinetDeployError, match="no visit was finished"):
        load_side("BASE", [tmp_path / "all" / "one"])


def test_a_device_that_only_one_side_has_is_told():
    phone = msgspec.structs.replace(DEVICE, name="R5CT")
    base = simulated_side("BASE", net(10, reference=5))
    new = simulated_side("NEW", net(10, "new", reference=5))
    new.runs += simulated_side("PHONE", net(30, "new"), device=phone).runs
    rows = compare_sides(base, new).rows
    assert [(row.device, row.network, row.verdict) for row in rows] == [
        ("host", "net", "unchanged"), ("host", "ref", "unchanged"), ("R5CT", "net", "new"),
    ]  # fmt: skip
    assert rows[-1].reason == "the other side has not this device"
