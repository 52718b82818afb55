"""The process among others: what torchrun's variables mean, and the verbs of a process that is alone."""

from __future__ import annotations

import pytest
import torch

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.train import Process

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)

    def give(**variables: str) -> None:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return give


def test_without_torchrun_there_is_one_process(environment) -> None:
    assert Process.from_environment("cpu") == Process()
    assert Process().main and Process().world_size == 1


def test_torchruns_variables_are_read(environment) -> None:
    environment(
        RANK="3",
        WORLD_SIZE="4",
        LOCAL_RANK="1",
        TORCHELASTIC_RESTART_COUNT="2",
        MASTER_ADDR="h",
        MASTER_PORT="1",
    )
    process = Process.from_environment("cpu")
    assert (process.rank, process.world_size, process.local_rank, process.restart_count) == (3, 4, 1, 2)
    assert process.device == torch.device("cpu") and not process.main


@pytest.mark.parametrize(
    ("variables", "device", "found"),
    [
        ({"RANK": "one"}, "cpu", "RANK='one' is not a number"),
        ({"WORLD_SIZE": "2"}, "cpu", "WORLD_SIZE=2, but no MASTER_ADDR or MASTER_PORT"),
        ({}, "tpu", "unknown device 'tpu'"),
    ],
)
def test_variables_and_devices_that_make_no_sense_are_refused(environment, variables, device, found) -> None:
    environment(**variables)
    with pytest.raises(UsageError, match=found):
        Process.from_environment(device)


def test_each_process_of_a_machine_gets_its_own_gpu(environment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    environment(LOCAL_RANK="1")
    assert Process.from_environment("auto").device == torch.device("cuda", 1)
    assert Process.from_environment("cpu").device == torch.device("cpu")
    environment(LOCAL_RANK="2")
    with pytest.raises(UsageError, match=r"process 3 on a machine with 2 GPU"):
        Process.from_environment("auto")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert Process.from_environment("auto").device == torch.device("cpu")
    with pytest.raises(UsageError, match="finds no CUDA device"):
        Process.from_environment("cuda")


def test_alone_every_verb_gives_back_what_it_was_given() -> None:
    process = Process()
    values = torch.tensor([1, 2])
    assert process.sum(values) is values
    assert process.largest(15) == 15
    assert process.gather(["b", "a", "b"]) == ["a", "b"]
    assert process.broadcast_bytes(b"x") == b"x" and process.broadcast_bytes(None) is None
    assert process.on_main(lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        process.on_main(lambda: 1 // 0)
    with process.group():
        assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (
            RuntimeError("[/pytorch/gloo/pair.cc:545] Connection closed by peer"),
            FinetDeployError,
            "has ended: .*closed",
        ),
        (
            torch.distributed.DistNetworkError("timed out"),
            FinetDeployError,
            "another process.*has ended: timed out",
        ),
        (RuntimeError("shapes differ"), RuntimeError, "^shapes differ$"),
    ],
)
def test_a_peer_that_is_gone_is_a_readable_error_and_other_errors_stay_what_they_are(
    monkeypatch: pytest.MonkeyPatch, error: Exception, kind: type[Exception], text: str
) -> None:
    left = []
    monkeypatch.setattr(Process, "_store", lambda self: None)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *_args, **_options: None)
    monkeypatch.setattr(torch.distributed, "destroy_process_group", lambda: left.append(True))
    with pytest.raises(kind, match=text), Process(world_size=2).group():
        raise error
    assert left == [True]
