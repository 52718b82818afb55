"""`finet-deploy train`: every field of a recipe is a flag, every change is said, and what comes out can be used."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import click
import pytest
import torch
from rich.console import Console as RichConsole

from finet_deploy.checkpoint import load_checkpoint
from finet_deploy.commands.console import Console
from finet_deploy.commands.train_progress import TrainProgress
from finet_deploy.data import open_dataset
from finet_deploy.data.dataset import Selection, spread
from finet_deploy.errors import FinetDeployError
from finet_deploy.train import EpochReport, Start, StepReport
from finet_deploy.train.recipe_fields import field_specs
from finet_deploy.train.recipes import Recipe, load_recipe
from tests.cli import FAILED, USAGE, error_line, run_cli
from tests.data_sets import make_cifar, make_image_folder

SPECS = {name: spec for name, spec in field_specs(Recipe).items() if spec.group and name != "model"}
# For each field a text as a person types it, and what it means; all differ from the recipe that they are given to.
GIVEN: dict[str, tuple[list[str], Any]] = {
    "norm": (["--norm", "bn"], "bn"),
    "num_groups": (["--num-groups", "2"], 2),
    "channels_per_group": (["--channels-per-group", "20"], 20),
    "se": (["--no-se"], False),
    "affine": (["--no-affine"], False),
    "cifar": (["--no-cifar"], False),
    "mimic_variant": (["--mimic-variant", "paper", "--norm", "mimic"], "paper"),
    "weight_mean": (["--weight-mean", "off", "--norm", "mimic"], "off"),
    "last_bn": (["--no-last-bn", "--norm", "mimic"], False),
    "dropout": (["--dropout", "0.1"], 0.1),
    "dataset": (["--dataset", "cifar10"], "cifar10"),
    "num_classes": (["--num-classes", "11"], 11),
    "image_size": (["--image-size", "24"], 24),
    "resize": (["--resize", "40"], 40),
    "interpolation": (["--interpolation", "bicubic"], "bicubic"),
    "mean": (["--mean", "0.1,0.2,0.3", "--std", "1,1,1"], (0.1, 0.2, 0.3)),
    "std": (["--std", "0.5,1,2", "--mean", "0,0,0"], (0.5, 1.0, 2.0)),
    "crop_padding": (["--crop-padding", "4"], 4),
    "random_resized_crop": (["--random-resized-crop"], True),
    "scale": (["--scale", "0.5,1"], (0.5, 1.0)),
    "ratio": (["--ratio", "0.9, 1.1"], (0.9, 1.1)),
    "flip": (["--flip"], True),
    "rotation": (["--rotation", "3"], 3.0),
    "epochs": (["--epochs", "7"], 7),
    "batch_size": (["--batch-size", "48"], 48),
    "accumulate": (["--accumulate", "2"], 2),
    "lr": (["--lr", "1e-3"], 1e-3),
    "schedule": (["--schedule", "step"], "step"),
    "milestones": (["--milestones", "3,5"], (3, 5)),
    "gamma": (["--gamma", "0.5"], 0.5),
    "warmup_epochs": (["--warmup-epochs", "0.5"], 0.5),
    "warmup_start": (["--warmup-start", "0.25"], 0.25),
    "momentum": (["--momentum", "0.8"], 0.8),
    "nesterov": (["--nesterov"], True),
    "weight_decay": (["--weight-decay", "0"], 0.0),
    "decay_norm_and_bias": (["--no-decay-norm-and-bias"], False),
    "label_smoothing": (["--label-smoothing", "0.1"], 0.1),
    "clip_grad_norm": (["--clip-grad-norm", "2"], 2.0),
    "ema_decay": (["--ema-decay", "0.99"], 0.99),
    "seed": (["--seed", "3"], 3),
    "fbn_impl": (["--fbn-impl", "grouped"], "grouped"),
    "sync_norm": (["--sync-norm"], True),
    "amp": (["--amp", "bf16"], "bf16"),
    "compile": (["--compile"], True),
    "qat": (["--qat"], True),
    "channels_last": (["--channels-last"], True),
}


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What `train` is called with, instead of training; the command then fails with `seen`."""
    calls: list[dict[str, Any]] = []

    def train(recipe, train_set, val_set, folder, **options):
        calls.append({"recipe": recipe, "train_set": train_set, "folder": folder, **options})
        raise FinetDeployError("seen")

    monkeypatch.setattr("finet_deploy.train.loop.train", train)
    monkeypatch.chdir(tmp_path)
    return calls


@pytest.fixture
def few_digits(monkeypatch):
    """128 of the digits to train on, 40 held out: a step takes as long as ever, an epoch has four."""

    def opened(name, split, **options):
        whole = open_dataset(name, split, **options)
        return Selection(whole, spread(len(whole), 128 if split == "train" else 40))

    monkeypatch.setattr("finet_deploy.data.opening.open_dataset", opened)


def test_every_field_of_a_recipe_has_its_flag():
    assert set(GIVEN) == set(SPECS)


@pytest.mark.parametrize("name", GIVEN)
def test_a_flag_changes_its_field_and_is_announced(asked, capsys, name):
    arguments, value = GIVEN[name]
    data = ["--data", make_cifar(Path("cifar"))] if name == "dataset" else []
    _, _, err = run_cli(capsys, "train", *arguments, *data)
    before, after = load_recipe("digits"), asked[0]["recipe"]
    assert getattr(before, name) != value
    assert getattr(after, name) == value
    changed = [field for field in SPECS if getattr(before, field) != getattr(after, field)]
    assert all(f"recipe digits: {field} " in err for field in changed)
    assert len(
        [line for line in err.splitlines() if line.startswith("recipe digits: ") and " -> " in line]
    ) == (len(changed))


def test_without_flags_nothing_is_changed(asked, capsys):
    _, _, err = run_cli(capsys, "train")
    assert asked[0]["recipe"] == load_recipe("digits")
    assert " -> " not in err
    assert asked[0]["folder"] == Path("runs/train/digits-finet_small-G4-SE-cifar-seed0")
    assert (asked[0]["resume"], asked[0]["workers"], asked[0]["save_every"]) == (False, 0, None)


def test_none_takes_an_optional_value_away(asked, capsys, tmp_path):
    (tmp_path / "mine.toml").write_text('base = "digits"\nema_decay = 0.9\nclip_grad_norm = 1.0\n')
    run_cli(capsys, "train", "--recipe", "mine.toml", "--ema-decay", "none")
    assert (asked[0]["recipe"].ema_decay, asked[0]["recipe"].clip_grad_norm) == (None, 1.0)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--lr", "0"], "'--lr': '0' is not a number above 0"),
        (["--lr", "fast"], "'--lr': 'fast' is not a number above 0"),
        (["--lr", "nan"], "'--lr': 'nan'"),
        (["--epochs", "2.5"], "'--epochs': '2.5' is not a whole number from 1"),
        (["--epochs", "none"], "'--epochs': 'none'"),
        (["--schedule", "cosin"], "one of linear, step, cosine, constant"),
        (["--mean", "1,2"], "3 values"),
        (["--dropout", "1"], "a number from 0, below 1, or 'none'"),
        (["--recipe", "digit"], "did you mean 'digits'"),
        (["--recipe", "absent.toml"], "no such recipe file"),
        (["--dataset", "cifar"], "did you mean 'cifar10'"),
        (["--dataset", "cifar10"], "give --data DIR"),
        (["finet_smal"], "did you mean 'finet_small'"),
        (["resnet18_fbn", "--se"], "has no option se"),
        (["--num-groups", "2", "--channels-per-group", "8"], "exclude each other"),
        (["--num-classes", "4"], "below the data set's 10"),
        (["--accumulate", "5"], "not a multiple"),
        (["--data", "here"], "needs no folder"),
        (["--download"], "cannot be downloaded"),
        (["--resume"], "no run to resume"),
        (["--batch-size", "4096"], "batch"),
    ],
)
def test_a_wrong_call_is_one_line_exit_2_and_leaves_nothing(capsys, tmp_path, monkeypatch, arguments, hint):
    monkeypatch.chdir(tmp_path)
    assert hint in error_line(capsys, USAGE, "train", *arguments)
    assert list(tmp_path.iterdir()) == []


def test_data_that_is_not_there_is_one_line_and_exit_1(capsys, tmp_path):
    line = error_line(capsys, FAILED, "train", "--dataset", "cifar10", "--data", tmp_path / "absent")
    assert "absent" in line


def test_a_given_network_drops_what_it_does_not_have_and_says_so(asked, capsys):
    _, _, err = run_cli(capsys, "train", "resnet18_fbn")
    recipe = asked[0]["recipe"]
    assert (recipe.model, recipe.se, recipe.num_groups, recipe.cifar) == ("resnet18_fbn", False, 4, True)
    assert "recipe digits: se = True left out: resnet18_fbn has no option se" in err
    assert "recipe digits: model finet_small -> resnet18_fbn" in err


def test_a_run_leaves_a_checkpoint_that_knows_its_recipe_and_what_to_do_next(few_digits, capsys, tmp_path):
    folder = tmp_path / "run"
    status, out, err = run_cli(capsys, "train", "--epochs", 2, "--num-groups", 2, "-o", folder, "--json")
    assert status == 0, err
    found = json.loads(out)
    recipe = load_recipe("digits").with_overrides(epochs=2, num_groups=2)
    assert found["recipe"] == json.loads(json.dumps(recipe.to_json_object()))
    assert load_recipe(folder / "recipe.json") == recipe
    assert (found["epochs"], found["steps"], found["accuracy"]["images"]) == (2, 8, 40)
    top1 = found["accuracy"]["top1"]
    assert top1["low"] <= top1["value"] <= top1["high"]
    model = load_checkpoint(found["checkpoint"])
    training = model.weights_origin["training"]
    assert Recipe.from_json_object(training["recipe"]) == recipe
    assert (training["dataset"], len(training["classes"])) == ("digits", 10)
    assert model.model_config.num_groups == 2
    assert f"next: finet-deploy evaluate {found['checkpoint']}" in err
    assert f"finet-deploy export {found['checkpoint']} --fuse" in err
    lines = [line for line in err.splitlines() if line.startswith("epoch ")]
    assert [line.partition(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert all("s left)" in line and "images/s" in line for line in lines)

    assert "--resume" in error_line(capsys, USAGE, "train", "--epochs", 2, "--num-groups", 2, "-o", folder)
    status, out, err = run_cli(capsys, "train", "--resume", "-o", folder)
    assert status == 0, err
    assert f"recipe of the run in {folder}: digits" in err
    assert "resumed after step 8" in err
    assert "top-1" in out and f"{40} held-out images" in out and str(folder / "model.safetensors") in out
    assert "lr" in error_line(capsys, USAGE, "train", "--resume", "-o", folder, "--lr", "0.05")


def test_a_loss_that_is_not_finite_is_one_line_with_step_and_layer(few_digits, capsys, tmp_path):
    arguments = ["train", "--norm", "mimic", "--lr", "1e30", "--warmup-epochs", "0", "--epochs", 3]
    line = error_line(capsys, FAILED, *arguments, "-o", tmp_path / "run")
    assert "at step" in line and "lower --lr" in line


def test_quiet_prints_the_result_alone(few_digits, capsys, tmp_path):
    status, out, err = run_cli(capsys, "train", "--epochs", 1, "-q", "-o", tmp_path / "run")
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == [
        "top-1",
        "top-5",
        "best",
        "trained",
        "checkpoint",
    ]


def test_under_torchrun_the_other_processes_are_silent(asked, capsys, monkeypatch):
    for name, value in {
        "RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_RANK": "1",
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": "1",
    }.items():
        monkeypatch.setenv(name, value)
    _, out, err = run_cli(capsys, "train", "--epochs", 1, "--device", "cpu")
    assert (out, err) == ("", "finet-deploy: error: seen\n")
    assert asked[0]["process"].rank == 1
    assert "download first" in error_line(capsys, USAGE, "train", "--download", "--device", "cpu")


def test_image_files_are_read_by_several_processes_unless_told_otherwise(asked, capsys, monkeypatch):
    make_image_folder(Path("images"))
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    arguments = ["train", "--dataset", "folder", "--data", "images"]
    run_cli(capsys, *arguments)
    run_cli(capsys, *arguments, "--workers", "1", "--skip-bad-images", "--save-every", "9")
    assert [call["workers"] for call in asked] == [6, 1]
    assert [call["train_set"].skip_bad_images for call in asked] == [False, True]
    assert asked[1]["save_every"] == 9


def test_the_bar_of_a_terminal_shows_epoch_step_loss_rate_and_goes_away(monkeypatch):
    console = Console()
    console.terminal = True
    screen = io.StringIO()
    made = RichConsole(file=screen, force_terminal=True, width=160)
    monkeypatch.setattr("rich.console.Console", lambda **_: made)
    accuracy = torch_accuracy()
    with TrainProgress(console) as progress:
        progress.started(Start(Path("run"), 0, 20, 10, 2))
        for step in range(1, 11):
            progress.step(StepReport(step, 1, 0.05, 1.25, 0.3, 4, 8, False))
        progress.epoch(EpochReport(1, 10, 0.05, 1.25, 0.5, accuracy, True, 3.0))
        progress.note("[a note] as it is")
    text = click.unstyle(screen.getvalue())
    for part in (
        "epoch 1/2, step 10/20: loss 1.25, lr 0.05",
        "images/s",
        "epoch 1/2: loss 1.25, top-1 50.00%",
    ):
        assert part in text
    assert "[a note] as it is" in text
    assert "best" in text


def torch_accuracy():
    from finet_deploy.data.accuracy import count_scores

    return count_scores(torch.eye(4).repeat(2, 1), torch.tensor([0, 1, 2, 3, 1, 2, 3, 0])).accuracy()
