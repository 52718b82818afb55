"""This process among those that `torchrun` started: torch.distributed, with the few verbs that training needs.

Rank 0 alone writes files and speaks; what it finds out (a refusal, a full disk) is told to the others, so that no
rank waits for one that has given up.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from finet_deploy.errors import FinetDeployError, UsageError

__all__ = ["Process"]

T = TypeVar("T")
RENDEZVOUS = ("MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Process:
    """One of `world_size` processes; the default is the only one, on the CPU.

    local_rank: its number on this machine, which chooses its GPU. restart_count: how often torchrun has
    restarted the group.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    restart_count: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def from_environment(cls, device: str = "auto") -> Process:
        """From torchrun's variables; a single process without them. device: cpu, cuda or auto.

        Raises UsageError for variables that make no sense, for a device that is not there, and for more processes
        on this machine than GPUs.
        """
        local_rank, world_size = _variable("LOCAL_RANK", 0), _variable("WORLD_SIZE", 1)
        missing = [name for name in RENDEZVOUS if name not in os.environ]
        if world_size > 1 and missing:
            what = f"WORLD_SIZE={world_size}, but no {' or '.join(missing)}"
            raise UsageError(what, do="start through torchrun, or unset WORLD_SIZE")
        return cls(
            rank=_variable("RANK", 0),
            world_size=world_size,
            local_rank=local_rank,
            restart_count=_variable("TORCHELASTIC_RESTART_COUNT", 0),
            device=_choose_device(device, local_rank),
        )

    @property
    def main(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    @contextlib.contextmanager
    def group(self) -> Iterator[None]:
        """The process group while training: NCCL between GPUs, Gloo between CPUs. Nothing for a single process.

        FinetDeployError when the others are gone.
        """
        if self.world_size == 1:
            yield
            return
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.set_device(self.device)
        backend = "nccl" if cuda else "gloo"
        try:
            dist.init_process_group(backend, store=self._store(), rank=self.rank, world_size=self.world_size)
            try:
                yield
            finally:
                dist.destroy_process_group()
        except RuntimeError as error:  # Gloo's errors have no type of their own
            if not isinstance(error, dist.DistError) and "gloo" not in str(error).lower():
                raise
            reason = " ".join(str(error).split())[:200]
            do = "see its message; `torchrun --max-restarts N` starts again by itself"
            raise FinetDeployError(f"another process of this run has ended: {reason}", do=do) from error

    def _store(self) -> dist.Store:
        """Where the processes find each other: torchrun's key-value store.

        torchrun keeps one store over its restarts, with the addresses of processes that are gone still in it
        (github.com/pytorch/pytorch/issues/135712); so each start on one machine gets keys of its own. The machines'
        counts of restarts may differ: with several of them, TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 has the same effect.
        """
        store, _, _ = next(dist.rendezvous("env://", self.rank, self.world_size))
        if _variable("LOCAL_WORLD_SIZE", self.world_size) == self.world_size:
            store = dist.PrefixStore(f"start-{self.restart_count}", store)
        return store

    def sum(self, values: Tensor) -> Tensor:
        """The sum over all processes, the same on each; `values` itself when there is one."""
        if self.world_size > 1:
            values = values.to(self.device, copy=True)
            dist.all_reduce(values)
        return values

    def largest(self, value: int) -> int:
        """The largest of all processes' values."""
        if self.world_size == 1:
            return value
        found = torch.tensor(value, dtype=torch.int64, device=self.device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found.item())

    def gather(self, own: list[str]) -> list[str]:
        """The names that any process has, sorted, each once."""
        if self.world_size == 1:
            return sorted(set(own))
        parts: list[list[str]] = [[] for _ in range(self.world_size)]
        dist.all_gather_object(parts, own)
        return sorted({name for part in parts for name in part})

    def broadcast_bytes(self, data: bytes | None) -> bytes | None:
        """Rank 0's bytes on every process; None stays None."""
        if self.world_size == 1:
            return data
        size = torch.tensor([-1 if data is None else len(data)], dtype=torch.int64, device=self.device)
        dist.broadcast(size, 0)
        if size.item() < 0:
            return None
        own = torch.empty(int(size.item()), dtype=torch.uint8)
        if self.main:
            assert data is not None  # rank 0's own size was sent
            own = torch.frombuffer(bytearray(data), dtype=torch.uint8)
        own = own.to(self.device)
        dist.broadcast(own, 0)
        return own.cpu().numpy().tobytes()

    def broadcast_model(self, model: nn.Module) -> None:
        """Rank 0's parameters and buffers on every process: each rank's running statistics saw other images."""
        if self.world_size > 1:
            for tensor in model.state_dict(keep_vars=True).values():
                dist.broadcast(tensor.detach(), 0)

    def on_main(self, action: Callable[[], T]) -> T | None:
        """Run `action` on rank 0; the result there, None elsewhere.

        What it raises is raised on rank 0; the others, told of it, raise a FinetDeployError instead of waiting for
        a process that is gone.
        """
        result, error = None, None
        if self.main:
            try:
                result = action()
            except Exception as caught:  # noqa: BLE001 (raised again below, after the others know)
                error = caught
        failed = self.largest(int(error is not None))
        if error is not None:
            raise error
        if failed:
            raise FinetDeployError("rank 0 has stopped", where=f"rank {self.rank}", do="see rank 0's message")
        return result


def _variable(name: str, default: int) -> int:
    text = os.environ.get(name, str(default))
    if not text.isdecimal():
        raise UsageError(f"environment variable {name}={text!r} is not a number", do="start through torchrun")
    return int(text)


def _choose_device(name: str, local_rank: int) -> torch.device:
    if name not in ("cpu", "cuda", "auto"):
        raise UsageError(f"unknown device {name!r}", do="use cpu, cuda or auto")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name == "cpu" or (name == "auto" and count == 0):
        return torch.device("cpu")
    if count == 0:
        raise UsageError("this torch finds no CUDA device", do="use --device cpu, or install torch for CUDA")
    if local_rank >= count:
        do = f"start {count} a machine (--nproc-per-node {count}), or use --device cpu"
        raise UsageError(f"process {local_rank + 1} on a machine with {count} GPU(s)", do=do)
    return torch.device("cuda", local_rank)
