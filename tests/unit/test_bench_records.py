"""The run folder survives a kill at any byte, and refuses what is not its own."""

from __future__ import annotations

import multiprocessing
import os

import msgspec
import pytest

from finet_deploy.bench import records as records_module
from finet_deploy.bench.protocol import Invalid, Resumed, encode_record
from finet_deploy.bench.records import RecordLog, create_run, read_job, read_run
from finet_deploy.bench.validity import visit_problem
from finet_deploy.errors import FinetDeployError, UsageError
from tests.bench_fakes import make_job, make_records, make_row

ROW = make_row()
OTHER = make_row("onnxruntime/1")


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "run"
    create_run(folder, make_job([ROW, OTHER]))
    return folder


def append(folder, index, **changes):
    job = read_job(folder)
    visit = job.visits[index]
    row = next(row for row in job.rows if row.id == visit.row)
    with RecordLog.open(folder) as log:
        log.append(make_records(visit, row, [1_000_000] * 5, **changes))


def test_what_is_written_reads_back_and_the_missing_visits_are_known(folder):
    append(folder, 0)
    append(folder, 2)
    run = read_run(folder)
    assert run.missing == (1, 3, 4, 5)
    assert run.visits[2].latencies_ns == [1_000_000] * 5
    assert (run.notes, run.resumed) == ((), ())


def test_a_file_cut_at_any_byte_reads_and_resumes_with_a_mark(folder):
    append(folder, 0)
    append(folder, 1)
    path = folder / "records.jsonl"
    whole = path.read_bytes()
    first = whole.index(b'"visit":1') - len(b'{"type":"start",')
    for size in [*range(0, len(whole) + 1, 97), first, first + 1, len(whole) - 1]:
        path.write_bytes(whole[:size])
        run = read_run(folder)
        assert (0 in run.missing, 1 in run.missing) == (size < first, size < len(whole))
        with RecordLog.open(folder) as log:
            log.mark_resumed(run, "2026-11-21T00:00:00+00:00")
        for index in run.missing:
            append(folder, index)
        again = read_run(folder)
        assert again.missing == ()
        assert [len(result.records) for result in again.visits.values()] == [6] * 6
        assert again.resumed[0].visits_done == 6 - len(run.missing)
        assert bool(again.notes) == (run.tail_bytes > 0)


def test_a_run_can_be_cut_and_resumed_twice(folder):
    append(folder, 0)
    path = folder / "records.jsonl"
    for _ in range(2):
        with path.open("ab") as stream:
            stream.write(b'{"type":"start","visi')
        run = read_run(folder)
        with RecordLog.open(folder) as log:
            log.mark_resumed(run, "2026-11-21T00:00:00+00:00")
    run = read_run(folder)
    assert [mark.discarded_bytes for mark in run.resumed] == [21, 21]
    assert "42 bytes" in run.notes[0]


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda text: text.replace(b'"type":"load"', b'"type":"lead"'), "not a run record.*records.jsonl:2"),
        (
            lambda text: text.replace(b'"schema_version":1', b'"schema_version":9'),
            "schema version 9.*reads version 1",
        ),
        (lambda text: text.replace(b'"visit":0', b'"visit":77'), "visit 77, which is not in the job"),
        (lambda text: b"\x80\x04\x95 pickle\n" + text, "not a run record.*records.jsonl:1"),
        (lambda text: b"[" * 50_000 + b"\n" + text, "not a run record"),
        (lambda text: b" " * (2 << 20) + b"\n", "too large"),
        (lambda text: text + b"garbage\n" + text, "not a run record.*records.jsonl:7"),
        (lambda text: text + b"garbage\n", "not a run record.*records.jsonl:7"),
        (
            lambda text: (
                text + b"cut\n" + encode_record(Resumed(resumed_utc="", visits_done=0, discarded_bytes=9))
            ),
            "not a run record.*records.jsonl:7",
        ),
    ],
)
def test_damaged_or_foreign_records_are_one_clear_error(folder, damage, message):
    append(folder, 0)
    path = folder / "records.jsonl"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FinetDeployError, match=message):
        read_run(folder)


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda text: b"{}", "not a benchmark job: .*missing required field"),
        (lambda text: b"[" * 100_000, "not a benchmark job: nested deeper than 64 levels"),
        (lambda text: text[: len(text) // 2], "not a benchmark job: .*truncated"),
        (lambda text: text.replace(b'"schema_version": 1', b'"schema_version": 2'), "schema version 2"),
        (
            lambda text: text.replace(b'"row": "onnxruntime/1"', b'"row": "other"'),
            "visits and rows do not match",
        ),
        (lambda text: text.replace(b'"index": 1', b'"index": 9'), "not numbered"),
        (lambda text: text.replace(b'"threads": 1', b'"threads": 0'), "threads"),
    ],
)
def test_a_damaged_or_foreign_job_is_one_clear_error(folder, change, message):
    path = folder / "job.json"
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(FinetDeployError, match=message):
        read_run(folder)


def test_a_folder_without_a_job_and_one_with_something_else_are_refused(tmp_path):
    with pytest.raises(FinetDeployError, match=r"no job\.json"):
        read_run(tmp_path)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="output already exists"):
        create_run(tmp_path, make_job([ROW]))
    assert os.listdir(tmp_path) == ["thesis.tex"]


def test_sizes_are_bounded(folder, monkeypatch):
    append(folder, 0)
    monkeypatch.setattr(records_module, "MAX_RECORDS_BYTES", 100)
    with pytest.raises(FinetDeployError, match="too large"):
        read_run(folder)


def _open_log(folder, queue):
    try:
        with RecordLog.open(folder):
            queue.put("opened")
    except UsageError as error:
        queue.put(str(error))


def test_two_processes_cannot_write_one_run(folder):
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    with RecordLog.open(folder):
        process = context.Process(target=_open_log, args=(folder, queue))
        process.start()
        assert "another process is writing" in queue.get(timeout=30)
        process.join()


def test_a_full_disk_is_an_error_with_a_remedy_and_the_run_goes_on_later(folder):
    append(folder, 0)
    with RecordLog.open(folder) as log, open("/dev/full", "wb", buffering=0) as full:
        log._stream = full
        with pytest.raises(FinetDeployError, match=r"No space left.*free some space"):
            log.append(make_records(read_job(folder).visits[1], OTHER, [1]))
    assert read_run(folder).missing == (1, 2, 3, 4, 5)


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({}, None),
        ({"threads": 2}, "asked for 1 threads, the runtime reports 2"),
        ({"sha256": "f" * 64}, "another file was run"),
        ({"runtime": "executorch"}, "run by executorch instead of onnxruntime"),
        ({"runs": 6}, "5 usable samples, 6 runs reported"),
        ({"error": 1e-3}, "wrong output on 'photo_0': norm-relative error 1.0e-03, limit 1.0e-05"),
        ({"error": None}, "error not a number"),
    ],
)
def test_a_visit_counts_only_when_all_that_was_asked_for_was_done(folder, changes, reason):
    append(folder, 0, **changes)
    found = visit_problem(read_run(folder).visits[0], ROW)
    assert (found is None) if reason is None else (reason in found)


def test_a_visit_without_all_its_phases_does_not_count(folder):
    append(folder, 0)
    result = read_run(folder).visits[0]
    for left_out in range(len(result.records)):
        kept = result.records[:left_out] + result.records[left_out + 1 :]
        assert visit_problem(records_module.VisitResult(0, kept), ROW) is not None
    empty = msgspec.structs.replace(result.records[4], latencies_ns=())
    assert visit_problem(records_module.VisitResult(0, (*result.records[:4], empty, result.records[5])), ROW)


def test_an_invalid_record_names_its_phase(folder):
    with RecordLog.open(folder) as log:
        log.append([Invalid(visit=0, reason="the runner was killed by SIGSEGV", phase="load")])
    run = read_run(folder)
    assert 0 not in run.missing
    assert visit_problem(run.visits[0], ROW) == "the runner was killed by SIGSEGV (in phase load)"
