"""Recipes: the papers' values as written, and nothing out of range, unknown or cut short gets through."""

from __future__ import annotations

import json
import math
from importlib import resources
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.train.recipe import fit_model
from finet_deploy.train.recipe_fields import FieldSpec, field_specs
from finet_deploy.train.recipes import Recipe, load_recipe, recipe_names
from tests.unit.test_cli import HEAVY, modules_after

# The papers' sections 5.1, 5.3 (Finet) and MimicNorm's recipe, by hand: not read from the files under test.
IMAGENET_VIEW = {
    "dataset": "imagenet",
    "image_size": 224,
    "resize": 256,
    "random_resized_crop": True,
    "scale": (0.08, 1.0),
    "ratio": (3 / 4, 4 / 3),
    "flip": True,
    "crop_padding": 0,
    "rotation": 0.0,
}
EXPECTED: dict[str, dict[str, Any]] = {
    "paper-imagenet": IMAGENET_VIEW
    | {"model": "finet_large", "num_groups": 4, "se": True, "dropout": 0.2, "cifar": False, "norm": None}
    | {
        "epochs": 320,
        "batch_size": 512,
        "lr": 0.2,
        "schedule": "linear",
        "momentum": 0.9,
        "weight_decay": 4e-5,
    }
    | {"warmup_epochs": 0.0, "milestones": (), "nesterov": False, "decay_norm_and_bias": True},
    "paper-cifar": {
        "model": "finet_large",
        "se": False,
        "cifar": True,
        "dataset": "cifar10",
        "image_size": 32,
    }
    | {"crop_padding": 2, "flip": True, "rotation": 0.0, "random_resized_crop": False, "resize": 32}
    | {
        "epochs": 200,
        "batch_size": 128,
        "lr": 0.1,
        "schedule": "step",
        "milestones": (100, 150),
        "gamma": 0.1,
    }
    | {"momentum": 0.9, "weight_decay": 5e-4, "warmup_epochs": 0.0, "nesterov": False},
    "mimic-cifar": {"norm": "mimic", "mimic_variant": "code", "weight_mean": "projection", "last_bn": True}
    | {
        "dataset": "cifar100",
        "crop_padding": 4,
        "flip": True,
        "rotation": 15.0,
        "cifar": True,
        "image_size": 32,
    }
    | {
        "epochs": 150,
        "batch_size": 256,
        "lr": 0.1,
        "schedule": "step",
        "milestones": (82, 112, 137),
        "gamma": 0.1,
    }
    | {"warmup_epochs": 2.0, "warmup_start": 1e-3, "momentum": 0.9, "nesterov": False, "weight_decay": 5e-4},
    "mimic-imagenet": IMAGENET_VIEW
    | {"norm": "mimic", "mimic_variant": "code", "weight_mean": "projection", "last_bn": True, "cifar": False}
    | {
        "epochs": 90,
        "batch_size": 256,
        "lr": 0.1,
        "schedule": "step",
        "milestones": (30, 60, 85),
        "gamma": 0.1,
    }
    | {"warmup_epochs": 2.0, "warmup_start": 0.01, "momentum": 0.9, "nesterov": False, "weight_decay": 1e-4},
    "digits": {
        "model": "finet_small",
        "num_groups": 4,
        "se": True,
        "cifar": True,
        "dataset": "digits",
        "image_size": 32,
    }
    | {"flip": False, "batch_size": 32},
}
SPECS = field_specs(Recipe)
NUMBERS = [spec for spec in SPECS.values() if spec.kind in (int, float) and not spec.choices]


@pytest.mark.parametrize("name", recipe_names())
def test_recipes_have_the_values_of_their_sources(name):
    recipe = load_recipe(name)
    assert {field: getattr(recipe, field) for field in EXPECTED[name]} == EXPECTED[name]
    assert recipe.name == name
    assert recipe.description and recipe.source


@pytest.mark.parametrize(
    ("name", "model", "field", "value"),
    [
        ("paper-cifar", "resnet18_fbn", "batch_size", 64),
        ("paper-cifar", "resnet50_fbn", "batch_size", 64),
        ("paper-cifar", "finet_small", "batch_size", 128),
        ("mimic-cifar", "resnet50", "batch_size", 128),
        ("mimic-imagenet", "shufflenetv2", "epochs", 200),
    ],
)
def test_values_that_a_paper_has_for_one_network_are_used_for_it(name, model, field, value):
    assert getattr(load_recipe(name, model), field) == value
    assert load_recipe(name).model not in ("resnet18_fbn", "resnet50_fbn", "resnet50", "shufflenetv2")


@pytest.mark.parametrize("name", recipe_names())
def test_every_value_in_the_files_says_where_it_is_from(name):
    text = resources.files("finet_deploy.train").joinpath("recipe_files", f"{name}.toml").read_text("utf-8")
    values = [line for line in text.splitlines() if " = " in line and not line.startswith("#")]
    bare = [line for line in values if "#" not in line]
    assert [line.partition(" = ")[0] for line in bare] == ["name", "description", "source"]
    assert len(values) > 15


def test_recipes_are_read_without_torch():
    found = modules_after(
        "from finet_deploy.train.recipes import load_recipe\nload_recipe('digits').model_config(10)"
    )
    assert "msgspec" in found
    assert found.isdisjoint(HEAVY)


def sound_values(spec: FieldSpec) -> st.SearchStrategy[Any]:
    """Any value that the field takes by itself."""
    if spec.choices:
        one: st.SearchStrategy[Any] = st.sampled_from(spec.choices)
    elif spec.kind is bool:
        one = st.booleans()
    elif spec.kind is int:
        one = st.integers(int(spec.low or 0), int(spec.high or 10**6))
    elif spec.kind is float:
        low, high = (-1e6 if spec.low is None else spec.low), (1e6 if spec.high is None else spec.high)
        one = st.floats(low, high, exclude_min=spec.low_open, exclude_max=spec.high_open)
    else:
        one = (
            st.sampled_from(["digits", "cifar10"])
            if spec.name == "dataset"
            else st.text("ab-_ 1", max_size=8)
        )
    if spec.length is not None:
        one = (
            st.lists(one, min_size=spec.length, max_size=spec.length or 4, unique=True).map(sorted).map(tuple)
        )
    return st.none() | one if spec.optional else one


# Fields that stand alone: what they may hold does not depend on the others.
ALONE = [
    spec
    for spec in SPECS.values()
    if spec.name
    not in (
        "model",
        "norm",
        "mimic_variant",
        "weight_mean",
        "last_bn",
        "mean",
        "std",
        "resize",
        "image_size",
        "channels_per_group",
        "num_classes",
        "accumulate",
        "momentum",
        "nesterov",
        "batch_size",
        "qat",
    )
]


@given(st.data())
def test_any_sound_value_is_taken_and_comes_back_from_json(data):
    chosen = data.draw(st.lists(st.sampled_from(ALONE), unique_by=lambda spec: spec.name, max_size=6))
    changes = {spec.name: data.draw(sound_values(spec), label=spec.name) for spec in chosen}
    recipe = load_recipe("digits").with_overrides(**changes)
    for name, value in changes.items():
        assert getattr(recipe, name) == value
    again = Recipe.from_json_object(json.loads(json.dumps(recipe.to_json_object())))
    assert again == recipe
    assert all(type(getattr(again, name)) is type(getattr(recipe, name)) for name in SPECS)


@given(st.data())
def test_a_number_beyond_its_limits_is_refused_by_name_value_and_range(data):
    spec = data.draw(
        st.sampled_from([spec for spec in NUMBERS if spec.low is not None or spec.high is not None])
    )
    outside: list[Any] = []
    if spec.low is not None:
        outside.append(spec.low if spec.low_open else spec.low - 1)
    if spec.high is not None:
        outside.append(spec.high if spec.high_open else spec.high + 1)
    value = data.draw(st.sampled_from(outside))
    if spec.length is not None:
        value = [value] * (spec.length or 1)
    with pytest.raises(UsageError) as caught:
        load_recipe("digits").with_overrides(**{spec.name: value})
    message = str(caught.value)
    assert f"{spec.name} = {value!r}" in message
    assert spec.limits and spec.limits in message


@pytest.mark.parametrize(
    "name", [spec.name for spec in NUMBERS if spec.kind is float and spec.length is None]
)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_and_infinity_are_no_values(name, value):
    with pytest.raises(UsageError, match=f"{name} = "):
        load_recipe("digits").with_overrides(**{name: value})


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"epochs": 2.5}, "epochs = 2.5 is out of range; give a whole number from 1"),
        ({"epochs": "3"}, "epochs = '3'"),
        ({"se": 1}, "se = 1 is out of range; give true or false"),
        ({"mean": (0.1, 0.2)}, "3 values, each a number"),
        ({"dataset": "cifar"}, "did you mean 'cifar10'"),
        ({"model": "finet_smal"}, "did you mean 'finet_small'"),
        ({"norm": "mimic", "affine": False}, "has no option affine"),
        ({"milestones": (10, 5)}, "do not rise"),
        ({"milestones": (5, 5)}, "do not rise"),
        ({"batch_size": 50, "accumulate": 4}, "not a multiple"),
        ({"image_size": 64}, "resize = 32 is below image_size = 64"),
        ({"scale": (0.5, 0.2)}, "the smaller one first"),
        ({"ratio": (2.0, 0.5)}, "the smaller one first"),
        ({"nesterov": True, "momentum": 0.0}, "nesterov without momentum"),
        ({"mean": (0.1, 0.2, 0.3)}, "mean and std go together"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_what_to_do(changes, hint):
    with pytest.raises(UsageError) as caught:
        load_recipe("digits").with_overrides(**changes)
    assert hint in str(caught.value)


def test_both_kinds_of_groups_at_once_are_refused_and_giving_one_removes_the_other():
    recipe = load_recipe("digits").with_overrides(channels_per_group=20)
    assert (recipe.num_groups, recipe.channels_per_group) == (None, 20)
    recipe = recipe.with_overrides(num_groups=2)
    assert (recipe.num_groups, recipe.channels_per_group) == (2, None)
    with pytest.raises(UsageError, match="exclude each other"):
        recipe.with_overrides(num_groups=2, channels_per_group=20)


def test_another_data_set_brings_its_own_mean_deviation_and_classes():
    own = load_recipe("digits").with_overrides(mean=(0.1, 0.2, 0.3), std=(1, 1, 1), num_classes=12)
    other = own.with_overrides(dataset="cifar100")
    assert (other.mean, other.std, other.num_classes) == (None, None, None)
    assert other.preprocessing().mean == (0.5071, 0.4865, 0.4409)
    assert own.with_overrides(dataset="digits", epochs=1).mean == (0.1, 0.2, 0.3)
    assert own.preprocessing().mean == (0.1, 0.2, 0.3)
    assert own.model_config(10).num_classes == 12
    with pytest.raises(UsageError, match="num_classes = 12 is below the data set's 100"):
        own.model_config(100)


def test_augmentation_and_preprocessing_are_the_recipes_own():
    recipe = load_recipe("mimic-imagenet").with_overrides(interpolation="bicubic", scale=(0.2, 0.9))
    view, values = recipe.augmentation(), recipe.preprocessing()
    assert (view.random_resized_crop, view.scale, view.flip, view.image_size) == (True, (0.2, 0.9), True, 224)
    assert (values.resize, values.crop, values.interpolation) == (256, 224, "bicubic")
    cifar = load_recipe("mimic-cifar").augmentation()
    assert (cifar.crop_padding, cifar.rotation, cifar.random_resized_crop) == (4, 15.0, False)


def test_the_network_of_a_recipe_is_built_with_its_options():
    config = load_recipe("paper-imagenet").model_config(1000)
    assert (config.name, config.num_groups, config.se, config.dropout) == ("finet_large", 4, True, 0.2)
    recipe = load_recipe("mimic-cifar").with_overrides(weight_mean="off", last_bn=False, model="vgg16")
    config = recipe.model_config(100)
    assert (config.norm, config.weight_mean, config.last_bn, config.cifar) == ("mimic", False, False, True)
    assert (
        load_recipe("mimic-cifar").with_overrides(weight_mean="reparametrization").model_config(9).weight_mean
    )


@pytest.mark.parametrize(
    ("name", "changes", "dropped"),
    [
        ("digits", {"model": "resnet18_fbn"}, {"se": False}),
        ("digits", {"model": "vgg16"}, {"se": False, "num_groups": None}),
        ("digits", {"model": "torchvision:resnet18"}, {"se": False, "num_groups": None, "cifar": False}),
        ("mimic-cifar", {"model": "resnet18_fbn"}, {"norm": None}),
        ("mimic-cifar", {"norm": "bn"}, {}),
        ("mimic-cifar", {"last_bn": False}, {}),
        ("paper-imagenet", {"model": "resnet18_fbn"}, {"se": False, "dropout": None}),
    ],
)
def test_what_the_given_network_does_not_have_goes_and_is_said(name, changes, dropped):
    recipe, notes = fit_model(load_recipe(name), changes)
    assert {field: getattr(recipe, field) for field in {**changes, **dropped}} == {**changes, **dropped}
    assert len(notes) == len(dropped)
    assert all(any(f": {field} = " in note for note in notes) for field in dropped)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("digits", {"model": "resnet18_fbn", "se": True}),
        ("digits", {"model": "vgg16", "num_groups": 2}),
        ("digits", {"last_bn": False}),
        ("digits", {"model": "torchvision:resnet18", "affine": False}),
        ("mimic-cifar", {"model": "finet_small", "channels_per_group": 20}),
    ],
)
def test_what_was_asked_for_and_the_network_does_not_have_is_refused(name, changes):
    with pytest.raises(UsageError, match="has no option"):
        fit_model(load_recipe(name), changes)


def write(path, text):
    path.write_text(text)
    return path


def test_a_file_may_build_on_a_recipe_of_the_package(tmp_path):
    path = write(tmp_path / "mine.toml", 'base = "paper-cifar"\nepochs = 3\n[per_model.vgg11]\nlr = 0.05\n')
    recipe = load_recipe(path)
    assert (recipe.name, recipe.epochs, recipe.lr, recipe.milestones) == ("paper-cifar", 3, 0.1, (100, 150))
    assert load_recipe(str(path), "resnet18_fbn").batch_size == 64
    with pytest.raises(UsageError, match="did you mean 'digits'"):
        load_recipe(write(tmp_path / "b.toml", 'base = "digit"\n'))


def test_the_recipe_of_a_run_can_be_used_again(tmp_path):
    recipe = load_recipe("mimic-cifar").with_overrides(epochs=7, seed=3)
    path = write(tmp_path / "recipe.json", json.dumps(recipe.to_json_object()))
    assert load_recipe(path) == recipe


def test_a_file_cut_at_any_byte_is_refused_or_still_a_checked_recipe(tmp_path):
    whole = json.dumps(load_recipe("digits").to_json_object())
    path = tmp_path / "recipe.json"
    for length in range(0, len(whole), 97):
        with pytest.raises(UsageError, match="unreadable recipe"):
            load_recipe(write(path, whole[:length]))


@pytest.mark.parametrize(
    ("name", "text", "hint"),
    [
        ("a.toml", 'model = "finet_sm', "unreadable recipe"),
        ("a.toml", 'model = "finet_small"\n', "lacks"),
        ("a.toml", 'base = "digits"\nepohcs = 3\n', "did you mean 'epochs'"),
        ("a.toml", 'base = "digits"\nepochs = 0\n', "epochs = 0 is out of range"),
        ("a.toml", 'base = "digits"\nlr = nan\n', "lr = nan"),
        ("a.toml", 'base = "digits"\nper_model = 3\n', "per_model holds tables"),
        ("a.json", "[1, 2]", "table of fields"),
        ("a.json", "[" * 5000, "unreadable recipe"),
        ("a.json", '{"model": "\\ud800"}', "recipe"),
    ],
)
def test_a_wrong_file_is_one_message_that_names_it(tmp_path, name, text, hint):
    path = write(tmp_path / name, text)
    with pytest.raises(UsageError) as caught:
        load_recipe(path)
    assert hint in str(caught.value)
    assert str(path) in str(caught.value)


def test_binary_huge_missing_and_unknown_are_told_apart(tmp_path):
    (tmp_path / "a.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="unreadable recipe"):
        load_recipe(tmp_path / "a.toml")
    with pytest.raises(FinetDeployError, match="larger than"):
        load_recipe(write(tmp_path / "b.toml", "#" * (1 << 19)))
    with pytest.raises(UsageError, match="no such recipe file"):
        load_recipe(tmp_path / "c.toml")
    with pytest.raises(UsageError, match="did you mean 'paper-cifar'"):
        load_recipe("paper-cifr")
