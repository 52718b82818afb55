"""Whatever a runner does, its visit ends with a reason, in time, and nothing is left running."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import msgspec
import pytest

from finet_deploy.bench.plan import visit_request
from finet_deploy.bench.protocol import End, Invalid, Start
from finet_deploy.bench.records import VisitResult, create_run, read_run
from finet_deploy.bench.run import resume_bench
from finet_deploy.bench.validity import visit_problem
from finet_deploy.devices.host import HostDevice
from finet_deploy.errors import FinetDeployError
from tests.bench_fakes import SETTINGS, make_job, make_rows

ROOT = Path(__file__).parents[2]
RUNNER = Path(__file__).with_name("runner.py")
QUICK = msgspec.structs.replace(SETTINGS, rounds=2, visit_timeout_seconds=60.0)


def device(fault="none"):
    return HostDevice(command=[sys.executable, str(RUNNER), fault])


@pytest.fixture
def planned(tmp_path):
    """A run folder with a job over one bundle, and nothing measured."""
    job = make_job(make_rows(tmp_path), QUICK, device=HostDevice().info())
    create_run(tmp_path / "run", job)
    return tmp_path / "run", job


def visit(planned, fault, timeout=60.0):
    folder, job = planned
    job = msgspec.structs.replace(
        job, settings=msgspec.structs.replace(job.settings, visit_timeout_seconds=timeout)
    )
    records = device(fault).run_visit(visit_request(job, job.visits[0], folder))
    return records, visit_problem(VisitResult(0, tuple(records)), job.rows[0])


def test_a_good_visit_has_all_records_of_one_process_and_counts(planned):
    records, problem = visit(planned, "none")
    assert problem is None
    assert [type(record).__name__ for record in records] == [
        "Start",
        "Load",
        "First",
        "Warmup",
        "Samples",
        "End",
    ]
    assert records[0].pid != os.getpid()
    assert records[0].affinity_cpus.value == tuple(sorted(os.sched_getaffinity(0)))
    assert records[5].output_errors == {"photo_0": 0.0, "noise_0": 0.0}
    assert records[5].peak_rss_mib.value > 1
    assert records[5].runs == len(records[4].latencies_ns) == 5
    assert min(records[4].latencies_ns) >= 500_000


@pytest.mark.parametrize(
    "fault, reason, phase, status, name",
    [
        ("segfault", "killed by SIGSEGV", "timing", None, "SIGSEGV"),
        ("out_of_memory", "killed by SIGKILL", "timing", None, "SIGKILL"),
        ("exit", "exit status 7", "timing", 7, None),
        ("raise", "RuntimeError: first line second line", "timing", None, None),
        ("silent", "the runner left no records", "start", 0, None),
        ("garbage", "not a run record", "start", 0, None),
        ("noise", "exit status 9", "start", 9, None),
        ("other_visit", "of another visit", "start", 0, None),
    ],
)
def test_a_runner_that_fails_gives_an_invalid_visit_with_reason_and_phase(
    planned, fault, reason, phase, status, name
):
    records, problem = visit(planned, fault)
    last = records[-1]
    assert isinstance(last, Invalid)
    assert reason in problem
    assert (last.phase, last.exit_status, last.signal) == (phase, status, name)
    assert not any(isinstance(record, End) for record in records)
    if phase == "timing":
        assert isinstance(records[0], Start)
    if fault == "noise":
        assert last.stderr_tail.endswith("last words\n")
        assert len(last.stderr_tail) <= 4000


def test_a_runner_that_hangs_is_ended_by_the_watchdog(planned):
    records, problem = visit(planned, "hang", timeout=4.0)
    assert "no result within 4 s (in phase timing)" in problem
    assert not alive(records[0].pid)


@pytest.mark.parametrize(
    "fault, reason",
    [
        ("wrong", "wrong output on"),
        ("nan", "error not a number"),
        ("threads", "asked for 1 threads, the runtime reports 2"),
    ],
)
def test_a_visit_that_ran_but_not_as_asked_does_not_count(planned, fault, reason):
    records, problem = visit(planned, fault)
    assert isinstance(records[-1], End)
    assert reason in problem


def test_what_the_runner_started_ends_with_it(planned):
    visit(planned, "grandchild", timeout=3.0)
    pid = int((planned[0].parent / "bundle" / "grandchild.pid").read_text())
    assert gone(pid)


def test_a_runner_that_cannot_be_started_is_an_error_not_a_table_of_invalid_rows(planned):
    folder, job = planned
    with pytest.raises(FinetDeployError, match=r"cannot start: No such file.*\[/nowhere/runner\]"):
        HostDevice(command=["/nowhere/runner"]).run_visit(visit_request(job, job.visits[0], folder))


def test_a_failed_visit_does_not_stop_the_others(planned):
    folder, _ = planned

    class EveryOther:
        runner = "python"
        info = device().info
        prepare = device().prepare

        def run_visit(self, request):
            return device("none" if request.visit.index % 2 else "segfault").run_visit(request)

    problems = []
    run = resume_bench(
        folder, device=EveryOther(), progress=lambda done: problems.append(done.problem is None)
    )
    assert problems == [False, True, False, True]
    assert run.missing == ()


BENCH = """
import sys
from pathlib import Path
from finet_deploy.bench.run import resume_bench
from finet_deploy.devices.host import HostDevice
resume_bench(Path(sys.argv[1]), device=HostDevice(command=[sys.executable, sys.argv[2], sys.argv[3]]))
"""


def bench_process(folder, fault):
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", BENCH, str(folder), str(RUNNER), fault]
    return subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL, start_new_session=True)


def descendants(pid):
    found = []
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found += [int(child), *descendants(int(child))]
    return found


def alive(pid):
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def gone(pid, seconds=20.0):
    return wait_until(lambda: not alive(pid), seconds)


def wait_until(condition, seconds=60.0):
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("kill", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_ended_bench_leaves_no_process_and_a_folder_that_resumes(planned, kill):
    folder, _ = planned
    measure_first_visit(folder)
    bench = bench_process(folder, "hang")
    assert wait_until(lambda: descendants(bench.pid))
    runner = descendants(bench.pid)[0]
    assert wait_until(lambda: b"runner.py" in Path(f"/proc/{runner}/cmdline").read_bytes())
    assert wait_until(lambda: has_begun(runner))
    bench.send_signal(kill)
    assert bench.wait(60) != 0
    assert gone(runner)
    assert read_run(folder).visits.keys() == {0}
    run = resume_bench(folder, device=device())
    assert run.missing == ()
    assert [visit_problem(result, run.job.rows[0]) for result in run.visits.values()] == [None] * 4
    assert run.resumed[-1].visits_done == 1


def measure_first_visit(folder):
    """Do one visit, and stop as Ctrl-C would."""

    def stop(done):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resume_bench(folder, device=device(), progress=stop)


def has_begun(pid):
    """Records exist: the worker is past its start, and has asked to die with its parent."""
    return any(Path(f"/proc/{pid}/cwd").glob("records.jsonl.unfinished"))
