"""Worker processes: they outlive Ctrl-C as long as the parent wants, and never the parent."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import closing
from multiprocessing import resource_sharer
from pathlib import Path

import pytest

from finet_deploy.data.workers import Fleet, stream
from finet_deploy.errors import FinetDeployError

PROGRAM = """
import multiprocessing, os, signal, sys, time
import finet_deploy.data.workers as workers

def read(job):
    return job * job

def make(worker, count):
    yield from range(worker, 1000, count)

stopped = []
if "stream" in sys.argv:
    results = workers.stream(make, 2)
else:
    fleet = workers.Fleet(read, 2)
    results = fleet.run(range(1000))
for result in results:
    if result in (4, 16):
        if "save first" in sys.argv:  # set when the workers run: they do not inherit it
            for sign in (signal.SIGINT, signal.SIGTERM):
                signal.signal(sign, lambda *_: stopped.append(1))
        print("pids", *(child.pid for child in multiprocessing.active_children()), flush=True)
        time.sleep(float(sys.argv[1]))
    if stopped and result > 10_000:  # a hundred results later: the workers go on
        print("stopped after", result, flush=True)
        break
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone_within(pids: list[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not any(map(alive, pids))


def started(*arguments: str) -> tuple[subprocess.Popen[str], list[int]]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    return process, [int(pid) for pid in process.stdout.readline().split()[1:]]


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
class TestSignals:
    @pytest.mark.parametrize("kind", ["fleet", "stream"])
    @pytest.mark.parametrize(
        ("sign", "status"), [(signal.SIGINT, -signal.SIGINT), (signal.SIGKILL, -signal.SIGKILL)]
    )
    def test_no_worker_outlives_a_parent_that_was_interrupted_or_killed(self, kind, sign, status):
        process, pids = started("30", kind)
        assert len(pids) == 2
        # As a terminal does: everyone gets it. A kill is the parent's alone.
        os.kill(process.pid, sign) if sign == signal.SIGKILL else os.killpg(process.pid, sign)
        process.communicate(timeout=60)
        assert process.returncode == status
        assert gone_within(pids, 30)

    @pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
    def test_after_a_signal_to_all_the_parent_can_finish_its_step(self, sign):
        process, pids = started("2", "save first")
        os.killpg(process.pid, sign)
        out, err = process.communicate(timeout=60)
        assert "stopped after 10201" in out, err
        assert (process.returncode, err) == (0, "")
        assert gone_within(pids, 30)


def double(job: int) -> int:
    if job == 7:
        raise FinetDeployError("seven", where="here", do="go on")
    return 2 * job


def counted(worker: int, workers: int) -> list[int]:
    return list(range(worker, 9, workers))


def test_results_are_in_order_and_the_processes_stay_for_the_next_epoch():
    fleet = Fleet(double, 2)
    try:
        assert list(fleet.run(range(5))) == [0, 2, 4, 6, 8]
        first = fleet._loader
        assert list(fleet.run([3, 1])) == [6, 2]
        assert fleet._loader is first
    finally:
        fleet.close()
    assert list(stream(counted, 2)) == list(stream(counted, 0)) == list(range(9))


def test_an_error_of_ours_comes_out_of_a_worker_as_it_is():
    with pytest.raises(FinetDeployError, match=r"^seven \[here\]; go on$") as caught:
        list(Fleet(double, 2).run([6, 7, 8]))
    assert (caught.value.where, caught.value.do) == ("here", "go on")


def killed(job: int) -> int:
    if job == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return job


def test_a_worker_that_dies_is_told_with_what_to_do():
    fleet = Fleet(killed, 1)
    with pytest.raises(FinetDeployError, match=r"a process that reads images died.*--workers"):
        list(fleet.run(range(9)))
    fleet.close()


def tensor_and_its_server(job: int) -> tuple[object, object]:
    """A tensor, which goes through shared memory, and the address at which this worker hands out its descriptors."""
    import torch

    return torch.full((3,), job), getattr(resource_sharer._resource_sharer, "_address", None)


def test_a_parent_that_stops_in_the_middle_of_a_fetch_is_no_news(capfd):
    fleet = Fleet(tensor_and_its_server, 1)
    results = fleet.run(range(40))
    with closing(results):
        address = next(address for _, address in results if address is not None)
        for said in (b"", b"x"):
            with socket.socket(socket.AF_UNIX) as link:
                link.connect(address)
                link.sendall(said)
        assert next(results)[0].tolist() != []  # and it still serves
    fleet.close()
    assert capfd.readouterr().err == ""


def test_workers_of_a_forgotten_fleet_end():
    import gc
    import multiprocessing

    before = set(multiprocessing.active_children())
    fleet = Fleet(double, 2)
    epoch = fleet.run(range(5))
    next(epoch)
    own = [child.pid for child in set(multiprocessing.active_children()) - before]
    assert len(own) == 2
    fleet.me = fleet  # a cycle, as an exception's traceback makes
    del fleet, epoch
    gc.collect()
    assert gone_within(own, 30)
