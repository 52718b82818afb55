"""Synchronized statistics: two processes with half the batch each are one process with the whole batch."""

from __future__ import annotations

import copy
import functools
import pickle
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from finet_deploy.errors import FinetDeployError
from finet_deploy.fuse import count_normalization, fuse
from finet_deploy.nn.fbn import FBNConv2d, FBNLinear, set_impl
from finet_deploy.nn.moments_sync import SyncGroup
from finet_deploy.nn.sync import convert_sync_norm
from finet_deploy.nn.sync_norm import SynchronizedBatchNorm
from tests.helpers import randomize_statistics
from tests.ranks import fork_ranks, launch

SPLIT = (4, 8)  # unequal parts: the counts matter
BATCH = SPLIT[0] + SPLIT[1]


class Net(nn.Module):
    """Every form: 1x1 in both layouts, patches, group by group, plain BN in 4 and 2 axes, linear, few outputs."""

    def __init__(self, affine: bool) -> None:
        super().__init__()
        self.features = nn.Sequential(
            FBNConv2d(6, 20, 1, num_groups=3, affine=affine),
            nn.ReLU(inplace=True),
            FBNConv2d(20, 80, 3, 2, 1, num_groups=20, affine=affine, bias=True),  # K = 9 <= 80: patches
            nn.ReLU(inplace=True),
            nn.Conv2d(80, 8, 1),
            nn.BatchNorm2d(8, affine=affine, momentum=None),
            FBNConv2d(8, 6, 3, padding=1, num_groups=2, affine=affine),  # K = 36 > 6: group by group
            nn.ReLU(inplace=True),
            FBNConv2d(6, 12, 1, 2, num_groups=6, affine=affine),
        )
        self.head = nn.Sequential(
            nn.Linear(12, 10),
            nn.BatchNorm1d(10, affine=affine),
            FBNLinear(10, 7, num_groups=5, affine=affine),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


def network(affine: bool, impl: str) -> Net:
    torch.manual_seed(0)
    net = Net(affine).double()
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) and affine:
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.normal_(norm.bias)
    set_impl(net, impl)  # type: ignore[arg-type]
    return net


def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(BATCH, 6, 8, 8, dtype=torch.float64, generator=generator)
    x += torch.arange(BATCH).view(-1, 1, 1, 1) / 4  # the parts' means differ
    return x, torch.randn(BATCH, 7, dtype=torch.float64, generator=generator)


def two_steps(net: nn.Module, x: Tensor, target: Tensor, share: float) -> dict[str, Tensor]:
    """Two steps of gradient descent on the sum of squares; share: of the gradients that DDP averages."""
    inner = net.module if isinstance(net, DistributedDataParallel) else net
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        leaf = x.clone().requires_grad_()
        y = net(leaf)
        ((y - target).square().sum() / share / BATCH).backward()
        optimizer.step()
    assert leaf.grad is not None
    found = {"y": y.detach(), "x": leaf.grad * share}
    return found | {n: p.grad for n, p in inner.named_parameters()} | inner.state_dict()


CASES = {"moments": (True, "moments"), "no affine": (False, "moments"), "grouped": (True, "grouped")}


def process(folder: str) -> None:
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    try:
        x, target = (tensor.split(SPLIT)[rank] for tensor in data())
        for case, (affine, impl) in CASES.items():
            net = convert_sync_norm(network(affine, impl))
            found = two_steps(DistributedDataParallel(net), x, target, share=1 / 2)
            torch.save(found, f"{folder}/{case}-{rank}.pt")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes find, case by case: started once, for that is what takes the time."""
    path = tmp_path_factory.mktemp("sync")
    launch("tests.unit.test_fbn_sync", path)
    return path


@pytest.mark.parametrize("case", CASES)
def test_two_processes_equal_one_with_the_whole_batch(case, folder: Path):
    """Outputs, gradients to input and parameters, parameters after two steps and running statistics; under DDP."""
    affine = CASES[case][0]
    parts = [torch.load(folder / f"{case}-{rank}.pt", weights_only=True) for rank in (0, 1)]
    x, target = data()
    whole = two_steps(network(affine, "grouped"), x, target, share=1.0)
    assert parts[0].keys() == whole.keys()
    for name, expected in whole.items():
        for rank, part in enumerate(parts):
            truth = expected.split(SPLIT)[rank] if name in ("y", "x") else expected
            error = float((part[name].double() - truth.double()).norm())
            scale = 1.0 if name.endswith("conv.bias") else float(truth.double().norm())
            assert error <= 1e-12 * max(scale, 1e-3), f"{name}, process {rank}: {error:g} against {scale:g}"


def test_conversion_keeps_state_mode_and_the_very_parameters():
    net = network(True, "moments")
    net.features[5].eval()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    keys, parameters = list(net.state_dict()), list(net.parameters())
    converted = convert_sync_norm(net)
    assert converted is net
    assert list(net.state_dict()) == keys
    assert all(a is b for a, b in zip(net.parameters(), parameters))
    assert all(a is b for a, b in zip(optimizer.param_groups[0]["params"], net.parameters()))
    norms = [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) == 7 and all(isinstance(norm, SynchronizedBatchNorm) for norm in norms)
    assert [norm.training for norm in norms].count(False) == 1 and not net.features[5].training
    assert net.features[5].momentum is None
    assert isinstance(convert_sync_norm(nn.BatchNorm2d(3)), SynchronizedBatchNorm)


def test_alone_a_converted_model_is_the_model():
    net = network(True, "moments")
    converted = convert_sync_norm(copy.deepcopy(net))
    x, _ = data()
    for mode in (True, False):
        assert torch.equal(net.train(mode)(x), converted.train(mode)(x))


def test_copies_share_the_process_group_and_pickling_one_of_its_own_is_refused():
    layer = convert_sync_norm(FBNConv2d(4, 4, 1, num_groups=2))
    assert copy.deepcopy(layer).bn.sync is layer.bn.sync
    assert pickle.loads(pickle.dumps(layer)).bn.sync.process_group is None  # noqa: S301 (our own bytes)
    own = convert_sync_norm(FBNConv2d(4, 4, 1, num_groups=2), process_group=object())
    assert convert_sync_norm(own).bn.sync.process_group is None
    with pytest.raises(FinetDeployError, match="cannot be pickled; save its state_dict"):
        pickle.dumps(SyncGroup(object()))


def test_torchs_own_conversion_is_understood_as_well():
    """Without processes to share with it is the plain layer; the moment form still runs (BN's own would want CUDA)."""
    layer = FBNConv2d(4, 6, 1, num_groups=2)
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(copy.deepcopy(layer))
    x = torch.randn(3, 4, 5, 5)
    assert torch.equal(layer(x), converted(x))


def test_a_synchronized_model_folds_like_any_other() -> None:
    model = Net(affine=True).double()
    randomize_statistics(model, 0)
    synchronized = convert_sync_norm(copy.deepcopy(model)).eval()
    x = torch.randn(4, 6, 8, 8, dtype=torch.float64)
    fused = fuse(synchronized)
    assert count_normalization(fused) == {}
    torch.testing.assert_close(fused(x), model.eval()(x), rtol=1e-12, atol=1e-12)


if __name__ == "__main__":
    sys.exit(fork_ranks(2, functools.partial(process, sys.argv[1])))
