"""Every fault in every phase of a benchmark on a phone ends in time, says what to do, and loses nothing."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from finet_deploy.bench.records import RECORDS_FILE
from tests.device.fault_bench import Bench, Done
from tests.device.fault_matrix import CELLS, README, SAID, THROUGH_SERVER, Cell, parts, table
from tests.device.fault_rows import FAULTS, PHASES
from tests.device.fault_scene import Scene
from tests.device.phone import Phone, why_not
from tests.device.test_adb_client_script import Client, client_command

needs_phone = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
DIRECT, SERVER = "direct", "adb server"
CASES = [(DIRECT, cell) for cell in CELLS] + [(SERVER, cell) for cell in THROUGH_SERVER]
STRUCK = 1  # the visit of the second round; the first one is finished before


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Scene]]:
    """The scene of each way to a phone, made when it is needed."""
    made: dict[str, Scene] = {}
    with contextlib.ExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("locks")))  # locks of this machine

        def get(way: str) -> Scene:
            if way not in made:
                folder = tmp_path_factory.mktemp("matrix")
                phone = stack.enter_context(Phone("snapdragon855", data_bytes=4 << 20))
                client = Client(client_command("fetched"), folder) if way == SERVER else None
                made[way] = scene = Scene(folder, phone, client)
                stack.callback(scene.close)
                scene.know()
                run = scene.new_run(rounds=1, finished=())
                done = Bench(scene, run)()
                assert done.status == 0, done.err
                scene.first = (run / RECORDS_FILE).read_bytes()
            return made[way]

        yield get


def striker(scene: Scene, cell: Cell) -> Callable[[], None]:
    """What happens at the cell's moment."""
    kind, values = cell.fault

    def strike() -> None:
        if kind == "fill":
            scene.fill()
        elif kind == "interrupt":
            os.kill(os.getpid(), signal.SIGINT)
        elif cell.waits:
            scene.phone.set_fault(kind, **values)
        else:
            if cell.row.lost:
                scene.stay()
            scene.phone.strike(kind, **values)

    return strike


def bench_of(scene: Scene, cell: Cell, run: Path) -> Bench:
    """The command that the cell's fault strikes."""
    return Bench(
        scene,
        run,
        cell.moment,
        striker(scene, cell),
        patient=cell.row.patient,
        reach=1.0 if cell.row.lost or cell.phase == "connect" else 10.0,
        lasting=cell.row.lost or cell.row.values.get("times", 1) is None,
    )


def check_error(done: Done, cell: Cell, scene: Scene) -> None:
    """One line that names phase, phone and remedy."""
    lines = [line for line in done.err.splitlines() if line.startswith("finet-deploy: error: ")]
    assert len(lines) == 1, done.err
    what, named, told = lines[0].partition(f"[{scene.spec}]; ")
    assert named, lines
    assert re.search(SAID[cell.phase], what), what
    remedy = (
        cell.ending.remedy if scene.client is None else ""
    )  # through the server the words are the server's way
    assert told, lines
    assert told.startswith(remedy or "")


def check_warning(done: Done, cell: Cell, scene: Scene, problem: str | None) -> None:
    """The visit does not count: phone, round and reason are told, and with the reason the phase and the remedy."""
    assert problem is not None
    assert cell.ending.reason is not None
    assert cell.ending.reason in problem
    assert re.search(SAID[cell.phase], problem), problem
    warned = [line for line in done.err.splitlines() if line.startswith("warning: invalid: ")]
    assert len(warned) == 1
    assert all(word in warned[0] for word in (scene.spec, "round 2", problem))


@needs_phone
@pytest.mark.parametrize(("way", "cell"), CASES, ids=[f"{way}-{cell.id}" for way, cell in CASES])
def test_a_fault_ends_in_time_says_what_to_do_and_loses_nothing(
    scenes: Callable[[str], Scene], way: str, cell: Cell
) -> None:
    """A command of three rounds, of which some are finished, and the same command again when the fault is over."""
    scene = scenes(way)
    scene.heal()
    if cell.phase == "push":
        scene.forget_file()
    spoilt = cell.ending.reason is not None  # then another visit must follow, for it to go on with
    run = scene.new_run(rounds=3, finished=(0,) if spoilt else (0, 2))
    finished = (run / RECORDS_FILE).read_bytes()
    done = bench_of(scene, cell, run)()
    assert done.status is not None, f"it hangs: {done.err}"
    assert done.struck, done.err
    assert done.status == cell.ending.status, done.err
    assert "Traceback" not in done.err
    assert (run / RECORDS_FILE).read_bytes().startswith(finished)
    found = scene.problems(run)
    if cell.ending.error is not None:
        check_error(done, cell, scene)
    elif spoilt:
        check_warning(done, cell, scene, found.pop(STRUCK))
        assert found == {0: None, 2: None}
    elif done.status == 0:
        assert found == {0: None, 1: None, 2: None}
    if not cell.row.lost:
        assert scene.ends_quiet(), scene.phone.processes()
    scene.heal()
    if not cell.row.lost:
        assert scene.left() == b"", done.err
    elif cell.moment.phase is not None and cell.row.kind != "reboot":
        assert scene.phone.processes(), "out of reach, the job goes on"
    if not spoilt and done.status != 0:
        check_resumed(scene, run)
    assert scene.ends_quiet(), scene.phone.processes()
    assert scene.left() == b""


def check_resumed(scene: Scene, run: Path) -> None:
    """The same command completes the run, and takes nothing back."""
    before = (run / RECORDS_FILE).read_bytes()
    again = Bench(scene, run)()
    assert again.status == 0, again.err
    assert (run / RECORDS_FILE).read_bytes().startswith(before)
    assert scene.problems(run) == {0: None, 1: None, 2: None}


def test_every_fault_and_phase_has_an_ending_or_a_reason() -> None:
    for row in FAULTS:
        assert tuple(row.endings) == PHASES, row.name
    assert len({cell.id for cell in CELLS}) == len(CELLS)


def test_the_readme_has_the_matrix_as_it_is_tested() -> None:
    """`python -m tests.device.fault_matrix --write` puts it there."""
    assert parts(README.read_text())[1] == table()
