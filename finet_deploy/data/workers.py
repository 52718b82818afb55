"""Worker processes that read ahead, by torch's DataLoader: jobs in, results in the same order out.

A job is a small tuple, and what it gives must not depend on the process that does it.
"""

from __future__ import annotations

import atexit
import signal
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from finet_deploy.errors import FinetDeployError

__all__ = ["Fleet", "in_worker", "run_once", "stream"]

DIED = "DataLoader worker"  # how torch begins to say so


class _Failed(NamedTuple):
    """An error of ours on its way out of a worker; torch would wrap it into a text with a traceback."""

    error: FinetDeployError


class _Jobs(Dataset[Any]):
    """The read function as something that can be indexed by a job."""

    def __init__(self, read: Callable[[Any], Any]) -> None:
        self._read = read

    def __getitem__(self, job: Any) -> Any:
        try:
            return self._read(job)
        except FinetDeployError as error:
            return _Failed(error)


class _Schedule:
    """The jobs of the present epoch; DataLoader asks again with each epoch."""

    def __init__(self) -> None:
        self.jobs: Sequence[Any] = ()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.jobs)

    def __len__(self) -> int:
        return len(self.jobs)


# Iterators of DataLoader whose worker processes run. Held here until they are ended: if one became garbage in a
# cycle, its pipes could be closed before its workers are told to end, which then never end, and the same file
# descriptors closed twice.
_running: set[Any] = set()


def _start(loader: DataLoader[Any]) -> Any:
    iterator = iter(loader)
    _running.add(iterator)
    return iterator


def _end(iterator: Any) -> None:
    iterator._shutdown_workers()
    _running.discard(iterator)


@atexit.register
def _end_all() -> None:
    """Before multiprocessing, whose hook is older, waits for its children: they do not listen to its SIGTERM."""
    for iterator in list(_running):
        _end(iterator)


def _without_the_parents_absence(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    """The `sys.excepthook` of a worker, whose own errors are results: only threads of its libraries come here.

    One of them hands tensors over, and a parent that was interrupted while it fetched one is no news.
    """
    if not isinstance(error, (EOFError, ConnectionError)):
        sys.__excepthook__(kind, error, trace)


def _prepare_worker(_worker: int) -> None:
    """Called first in a worker.

    Ctrl-C in a terminal, and batch systems' SIGTERM, reach every process. The parent decides: it may want to
    finish a step and save first, and a reader that died under it would cut that short. Readers end when the parent
    closes them, and within seconds when it is gone.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.excepthook = _without_the_parents_absence
    for iterator in _running:  # copies that came with the fork: their workers are not this process's to end
        iterator._shutdown = True


class Fleet:
    """Worker processes that stay for all epochs. One epoch at a time: beginning one ends the one before.

    read: must not lead back to this object, or the processes would stay until the end.
    """

    def __init__(self, read: Callable[[Any], Any], workers: int) -> None:
        self._read, self._workers = read, workers
        self._schedule = _Schedule()
        self._loader: DataLoader[Any] | None = None
        self._finish: weakref.finalize[..., Any] | None = None
        self._turn = 0

    def run(self, jobs: Sequence[Any]) -> Iterator[Any]:
        """The results of `jobs`, in order. An error ends the processes."""
        self._turn += 1
        turn = self._turn
        self._schedule.jobs = jobs
        if self._loader is None:
            jobs_set = _Jobs(self._read)
            self._loader = _loader(jobs_set, self._workers, sampler=self._schedule, persistent_workers=True)
            iterator = _start(self._loader)
            self._finish = weakref.finalize(self, _end, iterator)
        else:
            iterator = iter(self._loader)  # the same one, set back
        try:
            for result in _explained(iterator):
                yield result
                if turn != self._turn:
                    raise RuntimeError("an epoch was continued after the next one had begun")
        except FinetDeployError:
            self.close()
            raise

    def close(self) -> None:
        """End the processes."""
        self._turn += 1
        if self._finish is not None:
            self._finish()
        self._loader = self._finish = None


def run_once(read: Callable[[Any], Any], jobs: Sequence[Any], workers: int) -> Iterator[Any]:
    """The results of `jobs`, in order, by processes that end with the iteration; by this one when workers is 0."""
    if workers == 0:
        yield from map(read, jobs)
        return
    fleet = Fleet(read, workers)
    try:
        yield from fleet.run(jobs)
    finally:
        fleet.close()


class _Stream(IterableDataset[Any]):
    """Every worker's own share of a stream: `make(worker, workers)` yields results worker, worker + workers, ..."""

    def __init__(self, make: Callable[[int, int], Iterable[Any]]) -> None:
        self._make = make

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._make(*in_worker())
        except FinetDeployError as error:
            yield _Failed(error)


def in_worker() -> tuple[int, int]:
    """(number of this worker, number of workers); (0, 1) outside of one."""
    info = torch.utils.data.get_worker_info()
    return (0, 1) if info is None else (info.id, info.num_workers)


def stream(make: Callable[[int, int], Iterable[Any]], workers: int) -> Iterator[Any]:
    """The results of a stream that the workers divide: DataLoader takes one from each in turn, so they are in order."""
    if workers == 0:
        yield from make(0, 1)
        return
    iterator = _start(_loader(_Stream(make), workers))
    try:
        yield from _explained(iterator)
    finally:
        _end(iterator)


def _as_it_is(result: Any) -> Any:
    """Instead of torch's conversion, which makes lists of tuples."""
    return result


def _loader(dataset: Dataset[Any], workers: int, **options: Any) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        batch_size=None,
        num_workers=workers,
        collate_fn=_as_it_is,
        worker_init_fn=_prepare_worker,
        generator=torch.Generator(),  # without one of its own it draws from the training process's
        **options,
    )


def _explained(iterator: Iterator[Any]) -> Iterator[Any]:
    try:
        for result in iterator:
            if isinstance(result, _Failed):
                raise result.error
            yield result
    except RuntimeError as error:
        if DIED not in str(error):
            raise
        raise FinetDeployError(
            f"a process that reads images died: {str(error).splitlines()[0]}",
            do="it may have run out of memory, or of /dev/shm: give fewer --workers",
        ) from error
