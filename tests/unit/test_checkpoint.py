"""Checkpoints come back as the same network; anything else is refused with what to do."""

from __future__ import annotations

import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from finet_deploy.checkpoint import load_checkpoint, save_checkpoint
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.fuse import count_normalization, fuse
from finet_deploy.images import Preprocessing
from finet_deploy.names import resolve_config
from finet_deploy.nn.mimicnorm import is_reparametrized, largest_channel_mean, reparametrize_weight_mean
from finet_deploy.zoo import create_model
from tests.helpers import randomize_statistics

TINY = {"num_classes": 5, "cifar": True}


@pytest.fixture
def model():
    net = create_model("finet_small", se=True, seed=0, **TINY)
    randomize_statistics(net, 0)
    return net.eval()


@pytest.fixture
def x():
    return torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def config(**options):
    return resolve_config("finet_small", **{"se": True, **TINY, **options})


def test_a_checkpoint_comes_back_as_the_same_network(model, x, tmp_path):
    preprocessing = Preprocessing(40, 32)
    save_checkpoint(model, tmp_path / "a.safetensors", preprocessing=preprocessing)
    again = load_checkpoint(tmp_path / "a.safetensors")
    assert not again.training
    assert again.model_config == model.model_config
    assert again.weights_origin["kind"] == "checkpoint"
    assert len(again.weights_origin["sha256"]) == 64
    assert Preprocessing.from_json_object(again.weights_origin["preprocessing"]) == preprocessing
    with torch.no_grad():
        assert torch.equal(again(x), model(x))


def test_a_fused_network_comes_back_fused(model, x, tmp_path):
    fused = fuse(model)
    save_checkpoint(fused, tmp_path / "fused.safetensors")
    again = load_checkpoint(tmp_path / "fused.safetensors")
    assert count_normalization(again) == {}
    with torch.no_grad():
        assert torch.equal(again(x), fused(x))


@pytest.mark.parametrize(
    "prefixes", ["module.", "_orig_mod.", "module._orig_mod.", "ema_model.module.", "model."]
)
@pytest.mark.parametrize("container", [None, "state_dict", "model"])
def test_wrappers_of_training_scripts_are_taken_off_and_noted(model, x, tmp_path, prefixes, container):
    state = {prefixes + name: value for name, value in model.state_dict().items()}
    if prefixes.startswith("module."):
        state["n_averaged"] = torch.tensor(3)
    torch.save({container: state, "epoch": 3} if container else state, tmp_path / "a.pth")
    again = load_checkpoint(tmp_path / "a.pth", config())
    assert any("taken off" in note for note in again.weights_origin["notes"])
    with torch.no_grad():
        assert torch.equal(again(x), model(x))


def test_the_ema_is_taken_when_the_file_holds_both_and_that_is_noted(model, x, tmp_path):
    raw = create_model("finet_small", se=True, seed=1, **TINY).state_dict()
    torch.save({"state_dict": raw, "state_dict_ema": model.state_dict()}, tmp_path / "a.pt")
    again = load_checkpoint(tmp_path / "a.pt", config())
    assert any(
        "state_dict_ema" in note and "not from 'state_dict'" in note for note in again.weights_origin["notes"]
    )
    with torch.no_grad():
        assert torch.equal(again(x), model(x))


class _Code:
    def __reduce__(self):
        return (print, ("code from the file ran",))


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_pickle_with_code_in_it_is_refused_and_not_run(tmp_path, capfd, writer):
    path = tmp_path / "evil.pt"
    if writer == "torch":
        torch.save({"state_dict": _Code()}, path)
    else:
        path.write_bytes(pickle.dumps(_Code()))
    with pytest.raises(FinetDeployError, match=r"evil\.pt.*never run"):
        load_checkpoint(path, config())
    assert "ran" not in capfd.readouterr().out


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("keep", [0, 7, 100, 0.5, -1])
def test_a_truncated_checkpoint_is_refused_by_name(model, tmp_path, suffix, keep):
    path = tmp_path / f"a{suffix}"
    if suffix == ".pth":
        torch.save(model.state_dict(), path)
    else:
        save_checkpoint(model, path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep) if isinstance(keep, float) else keep])
    with pytest.raises(FinetDeployError, match=rf"a\{suffix}"):
        load_checkpoint(path, config())


@pytest.mark.parametrize("name", ["a.safetensors", "a.pt", "a.txt"])
def test_a_foreign_file_is_refused_by_name(tmp_path, name):
    (tmp_path / name).write_bytes(b"GIF89a" + bytes(range(256)) * 20)
    with pytest.raises(FinetDeployError, match=name.replace(".", r"\.")):
        load_checkpoint(tmp_path / name, config())


@pytest.mark.parametrize("content", [[1, 2, 3], {"epoch": 3}, 5, {"state_dict": {"note": "text"}}])
def test_a_file_without_weights_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(FinetDeployError, match=r"save model\.state_dict\(\)"):
        load_checkpoint(tmp_path / "a.pt", config())


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(FinetDeployError, match="no such checkpoint"):
        load_checkpoint(tmp_path / "absent.safetensors")


def test_a_plain_state_dict_without_a_name_asks_for_it(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "a.pt")
    with pytest.raises(UsageError, match="give --model NAME"):
        load_checkpoint(tmp_path / "a.pt")


def test_another_width_or_head_names_the_tensor_and_the_option(model, tmp_path):
    torch.save(model.state_dict(), tmp_path / "a.pt")
    with pytest.raises(FinetDeployError, match=r"fc2\.bias is \(5,\) in the file.*give --num-classes 5"):
        load_checkpoint(tmp_path / "a.pt", config(num_classes=7))
    with pytest.raises(FinetDeployError, match="another shape.*--num-groups"):
        load_checkpoint(tmp_path / "a.pt", config(num_groups=8))


def test_missing_and_unexpected_keys_are_listed_with_the_nearest_name(model, tmp_path):
    state = model.state_dict()
    state["fc3.weight"] = state.pop("fc2.weight")
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(
        FinetDeployError, match=r"1 missing \(fc2\.weight\), 1 unexpected \(fc3\.weight\); did you mean 'fc"
    ):
        load_checkpoint(tmp_path / "a.pt", config())
    notes = load_checkpoint(tmp_path / "a.pt", config(), strict=False).weights_origin["notes"]
    assert any("without strict" in note for note in notes)


def test_weights_that_are_not_finite_are_refused_by_name(model, tmp_path):
    model.fc1.weight.data[0, 0] = float("nan")
    torch.save(model.state_dict(), tmp_path / "a.pt")
    with pytest.raises(FinetDeployError, match=r"fc1\.weight holds NaN"):
        load_checkpoint(tmp_path / "a.pt", config())


def test_a_configuration_that_contradicts_the_file_is_refused(model, tmp_path):
    save_checkpoint(model, tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match="holds finet_small"):
        load_checkpoint(tmp_path / "a.safetensors", config(se=False))


@pytest.mark.parametrize("metadata", ["[", "{}", json.dumps({"schema_version": 99}), "[" * 5000, '"text"'])
def test_unreadable_metadata_is_refused(model, tmp_path, metadata):
    save_file(model.state_dict(), tmp_path / "a.safetensors", {"finet_deploy": metadata})
    with pytest.raises(FinetDeployError, match=r"a\.safetensors"):
        load_checkpoint(tmp_path / "a.safetensors")


def test_half_precision_weights_are_widened_and_that_is_noted(model, tmp_path):
    save_file(
        {name: t.half() if t.is_floating_point() else t for name, t in model.state_dict().items()},
        tmp_path / "a.safetensors",
    )
    again = load_checkpoint(tmp_path / "a.safetensors", config())
    assert "stored as torch.float16, loaded as torch.float32" in again.weights_origin["notes"]
    assert again.fc1.weight.dtype == torch.float32


def test_a_checkpoint_needs_a_configuration_and_its_own_suffix(model, tmp_path):
    with pytest.raises(UsageError, match="no configuration"):
        save_checkpoint(torch.nn.Linear(2, 2), tmp_path / "a.safetensors")
    with pytest.raises(UsageError, match=r"\.safetensors"):
        save_checkpoint(model, tmp_path / "a.pt")


def mimic_network():
    net = create_model("shufflenetv2", norm="mimic", seed=0, **TINY).eval()
    with torch.no_grad():
        net.stage2[1].branch[6].scale.fill_(-0.5)  # after its ReLU: fuse keeps the multiplication
        net.stage2[2].branch[7].shift.fill_(0.25)
        net.last_bn.running_mean.fill_(0.5)
    return net


def test_a_fused_network_whose_scalar_had_to_stay_comes_back_fused(x, tmp_path):
    fused = fuse(mimic_network())
    assert [entry.path for entry in fused.fuse_report.kept if entry.kind == "LearnableScale"] == [
        "stage2.1.branch.6"
    ]
    save_checkpoint(fused, tmp_path / "fused.safetensors")
    again = load_checkpoint(tmp_path / "fused.safetensors")
    assert again.state_dict().keys() == fused.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(again(x), fused(x))


def test_reparametrized_weights_are_stored_as_the_weights_that_they_give(x, tmp_path):
    net = mimic_network()
    reparametrize_weight_mean(net)
    with torch.no_grad():
        net.conv5[0].parametrizations.weight.original.add_(0.1)
        expected = net(x)
    save_checkpoint(net, tmp_path / "a.safetensors")
    again = load_checkpoint(tmp_path / "a.safetensors")
    assert largest_channel_mean(again) < 1e-6
    with torch.no_grad():
        assert torch.equal(again(x), expected)
    assert is_reparametrized(net.conv5[0])


def test_what_is_known_of_the_training_comes_back_and_travels_on(model, tmp_path):
    training = {"recipe": {"name": "digits", "lr": 0.1}, "classes": ["0", "1"], "epochs": 20}
    save_checkpoint(model, tmp_path / "a.safetensors", training=training, trained=True)
    again = load_checkpoint(tmp_path / "a.safetensors")
    assert again.weights_origin["training"] == training
    assert again.weights_origin["trained"] is True
    save_checkpoint(fuse(again), tmp_path / "b.safetensors")
    deployed = load_checkpoint(tmp_path / "b.safetensors").weights_origin
    assert (deployed["training"], deployed["trained"]) == (training, True)
    save_checkpoint(model, tmp_path / "c.safetensors")
    assert load_checkpoint(tmp_path / "c.safetensors").weights_origin["training"] is None


@pytest.mark.parametrize(
    ("training", "found"),
    [
        ({"loss": float("nan")}, "cannot be written as JSON"),
        ({"path": object()}, "cannot be written as JSON"),
        ({"log": "x" * 1_000_000}, "more than 1000000"),
    ],
)
def test_training_metadata_that_is_not_json_or_too_long_is_refused(model, tmp_path, training, found):
    with pytest.raises(UsageError, match=found):
        save_checkpoint(model, tmp_path / "a.safetensors", training=training)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("text", ['{"schema_version": 1, "training": [1]}', " " * 1_000_001])
def test_foreign_training_metadata_is_refused(model, tmp_path, text):
    save_file(model.state_dict(), tmp_path / "a.safetensors", {"finet_deploy": text})
    with pytest.raises(FinetDeployError, match="metadata"):
        load_checkpoint(tmp_path / "a.safetensors")
