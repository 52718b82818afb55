"""`state.pt`: comes back to the bit, or is refused with the reason; nothing in it is ever run."""

from __future__ import annotations

import functools
import io
import os
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.train.diagnose import NotFinite
from finet_deploy.train.distributed import Process
from finet_deploy.train.learner import Learner, build_learner
from finet_deploy.train.state import Identity, Progress, read_state, restore, write_state
from finet_deploy.train.step import take_step
from tests.train_runs import flat, tiny_recipe

RECIPE = tiny_recipe(model="squeezenet", norm="bn", num_groups=None, amp="fp16")
IDENTITY = Identity(
    recipe=RECIPE.to_json_object(), model={"name": "squeezenet"}, dataset="digits", fingerprint="a1"
)


def learner_of(seed: int = 0) -> Learner:
    recipe = RECIPE.with_overrides(seed=seed)
    return build_learner(recipe, recipe.model_config(10), Process())


def tensors(learner: Learner) -> dict[str, object]:
    assert learner.ema is not None and learner.scaler is not None
    parts = [learner.model, learner.optimizer, learner.ema, learner.scaler]
    return flat([part.state_dict() for part in parts])


@functools.cache
def trained() -> tuple[Learner, bytes]:
    learner = learner_of()
    taken = 0
    while taken < 2:  # the first ones overflow, until the loss scale has come down
        taken += not take_step(learner, torch.randn(4, 3, 8, 8), torch.randint(10, (4,)), 0.02).skipped
    path = Path(os.environ.get("TMPDIR", "/tmp")) / f"finet-state-{os.getpid()}.pt"
    write_state(path, learner, Progress(step=2, loss_sum=0.1 + 0.2, skipped_images=["a.png"]), IDENTITY)
    data = read_state(path)
    path.unlink()
    return learner, data


def saved(change: object = None) -> bytes:
    """The saved state, passed through `change` as a dictionary."""
    state = torch.load(io.BytesIO(trained()[1]), weights_only=True)
    if change is not None:
        change(state)  # type: ignore[operator]
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def test_everything_comes_back_to_the_bit_into_a_network_with_other_weights() -> None:
    learner, data = trained()
    other = learner_of(seed=1)
    expected = tensors(learner)
    assert not torch.equal(tensors(other)["/0/stem.0.weight"], expected["/0/stem.0.weight"])
    progress = restore(data, other, IDENTITY, Path("state.pt"))
    assert (progress.step, progress.loss_sum, progress.skipped_images) == (2, 0.1 + 0.2, ["a.png"])
    found = tensors(other)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value) if isinstance(value, torch.Tensor) else found[name] == value, (
            name
        )
    assert any("momentum_buffer" in name for name in found)


@settings(max_examples=25, deadline=None)
@given(st.floats(0, 1, exclude_max=True))
def test_a_file_cut_anywhere_is_refused_by_name(share: float) -> None:
    data = trained()[1]
    with pytest.raises(FinetDeployError, match=r"truncated or not a training state.*\[run/state\.pt\]"):
        restore(data[: int(share * len(data))], learner_of(), IDENTITY, Path("run/state.pt"))


class Evil:
    """Makes a file when it is unpickled by the ordinary loader."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("save", [torch.save, pickle.dump])
def test_code_in_a_state_is_refused_and_not_run(save, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    save({"schema_version": 1, "model": Evil(tmp_path / "evil")}, buffer)
    with pytest.raises(FinetDeployError, match="truncated or not a training state"):
        restore(buffer.getvalue(), learner_of(), IDENTITY, Path("state.pt"))
    assert not (tmp_path / "evil").exists()
    pickle.loads(pickle.dumps(Evil(tmp_path / "evil")))  # noqa: S301 (our own: what would have happened)
    assert (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.pop("optimizer"),
        lambda s: s.pop("progress"),
        lambda s: s["progress"].update(step="two"),
        lambda s: s["progress"].update(accuracy={"top1": 1}),
        lambda s: s["identity"].pop("dataset"),
        lambda s: s["model"].pop("stem.0.weight"),
        lambda s: s["model"].update({"stem.0.weight": torch.zeros(1)}),
        lambda s: s["optimizer"].update(param_groups=[]),
        lambda s: s.update(ema=None),
        lambda s: s.update(scaler={}),
    ],
)
def test_a_state_with_a_part_missing_or_misshapen_is_refused(change) -> None:
    with pytest.raises(FinetDeployError, match="truncated or not a training state"):
        restore(saved(change), learner_of(), IDENTITY, Path("state.pt"))


def test_another_schema_is_refused() -> None:
    with pytest.raises(FinetDeployError, match="not a training state that this release reads"):
        restore(saved(lambda s: s.update(schema_version=2)), learner_of(), IDENTITY, Path("state.pt"))


@pytest.mark.parametrize(
    ("other", "named"),
    [
        ({"recipe": {**IDENTITY.recipe, "lr": 0.7}}, "lr: 0.02, not 0.7"),
        ({"recipe": {**IDENTITY.recipe, "seed": 3}}, "seed: 0, not 3"),
        ({"recipe": {**IDENTITY.recipe, "milestones": [1]}}, r"milestones: \[\], not \[1\]"),
        ({"model": {"name": "vgg11"}}, "model name: squeezenet, not vgg11"),
        ({"dataset": "cifar10"}, "dataset: digits, not cifar10"),
        ({"fingerprint": "b2"}, "the dataset's fingerprint: a1, not b2"),
    ],
)
def test_another_run_is_refused_by_what_differs(other: dict, named: str) -> None:
    identity = Identity(**{**{f: getattr(IDENTITY, f) for f in IDENTITY.__struct_fields__}, **other})
    with pytest.raises(UsageError, match=rf"another one: it has {named} \["):
        restore(saved(), learner_of(), identity, Path("state.pt"))


def test_what_a_recipe_is_called_does_not_matter() -> None:
    renamed = {**IDENTITY.recipe, "name": "mine", "description": "x", "source": "y"}
    identity = Identity(recipe=renamed, model=IDENTITY.model, dataset="digits", fingerprint="a1")
    assert restore(saved(), learner_of(), identity, Path("state.pt")).step == 2


@pytest.mark.parametrize("name", ["head.1.weight", "stem.1.running_var"])
def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path, name: str) -> None:
    learner = learner_of()
    path = tmp_path / "state.pt"
    write_state(path, learner, Progress(), IDENTITY)
    before = path.read_bytes()
    tensor = next(
        tensor for key, tensor in learner.model.state_dict().items() if key.endswith(name.split(".")[-1])
    )
    tensor.view(-1)[0] = float("nan")
    with pytest.raises(NotFinite, match="the weights are not finite: first in "):
        write_state(path, learner, Progress(step=9), IDENTITY)
    assert path.read_bytes() == before
