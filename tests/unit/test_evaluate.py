"""`evaluate` on networks: figures that can be checked by hand, agreement, limits, and what is said of wrong calls."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from finet_deploy.checkpoint import save_checkpoint
from finet_deploy.data import open_dataset
from finet_deploy.data.accuracy import wilson
from finet_deploy.data.dataset import BadImage, Selection, spread
from finet_deploy.data.opening import limited
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.evaluate import check_classes, evaluate_runners, model_runner
from finet_deploy.evaluate.evaluation import Runner
from finet_deploy.images import Preprocessing
from finet_deploy.zoo import create_model
from tests.cli import FAILED, INTERRUPTED, USAGE, error_line, interrupt_here_when, interrupt_when, run_cli
from tests.data_sets import ListDataset, make_cifar, make_image_folder, make_shards, random_dataset

PLAIN = Preprocessing(8, 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
DIGITS = Preprocessing(32, 32)


def labelled(count: int, classes: int) -> ListDataset:
    """Images whose brightness is their label."""
    items = [
        (torch.full((3, 8, 8), index % classes, dtype=torch.uint8), index % classes) for index in range(count)
    ]
    return ListDataset(items, classes)


def knows(name: str, classes: int, wrong: set[int] = frozenset(), nan: set[int] = frozenset()) -> Runner:
    """Reads the label off the brightness; says the next class for those in `wrong`, NaN for those in `nan`."""

    def run(images: Tensor) -> Tensor:
        labels = (images.mean((1, 2, 3)) * 255).round().long()
        said = torch.tensor([(label + 1) % classes if label in wrong else label for label in labels.tolist()])
        scores = torch.nn.functional.one_hot(said, classes).float()
        scores[[label in nan for label in labels.tolist()]] = float("nan")
        return scores

    return Runner(name, "fake 1", run)


@pytest.mark.parametrize("batch_size", [1, 7, 100])
@pytest.mark.parametrize("workers", [0, 2])
def test_accuracy_and_agreement_are_those_of_the_predictions(batch_size, workers):
    forms = [knows("a", 10), knows("b", 10, wrong={3}), knows("c", 10, wrong={3, 4})]
    found = evaluate_runners(forms, labelled(40, 10), PLAIN, batch_size=batch_size, workers=workers)
    assert [row.accuracy.correct for row in found.rows] == [40, 36, 32]
    assert found.rows[1].accuracy.top1 == wilson(36, 40)
    assert [row.agreement(found.rows[0]).value for row in found.rows] == [1, 0.9, 0.8]
    assert found.rows[1].agreement(found.rows[2]).value == 0.9
    assert found.unanimous == 32
    assert found.labels.tolist() == [index % 10 for index in range(40)]
    assert found.rows[2].predictions[:5].tolist() == [0, 1, 2, 4, 5]


def test_scores_that_are_not_finite_are_no_prediction_and_never_agree():
    forms = [knows("a", 10, nan={2}), knows("b", 10, nan={2})]
    found = evaluate_runners(forms, labelled(20, 10), PLAIN, batch_size=6)
    assert found.unanimous == 18
    assert found.rows[0].agreement(found.rows[1]).value == 0.9
    assert found.rows[0].predictions[2] == -1
    assert found.rows[0].accuracy.not_finite == 2
    json.dumps(found.to_json_object(), allow_nan=False)


def test_skipped_images_are_in_no_figure_and_the_csv_has_the_indices_of_the_others():
    dataset = labelled(6, 3)
    dataset.items[1] = (BadImage("gone", "1.png"), 1)
    with pytest.raises(BadImage):
        evaluate_runners([knows("a", 3)], dataset, PLAIN, batch_size=2)
    dataset.skip_bad_images = True
    found = evaluate_runners([knows("a", 3), knows("b", 3, wrong={2})], dataset, PLAIN, batch_size=2)
    assert (len(found.labels), found.skipped, found.rows[0].accuracy.skipped) == (5, ("1.png",), 1)
    rows = list(csv.reader(found.predictions_csv().splitlines()))
    assert rows[0] == ["index", "label", "a", "b"]
    assert ["".join(row) for row in rows[1:]] == ["0000", "2220", "3000", "4111", "5220"]
    dataset.items = [dataset.items[1]]
    with pytest.raises(FinetDeployError, match=r"no image of list could be read \(1 were skipped\)"):
        evaluate_runners([knows("a", 3)], dataset, PLAIN, batch_size=2)


def test_the_summary_explains_a_missing_top5_and_names_what_was_left_out():
    dataset = labelled(6, 3)
    dataset.items[1], dataset.skip_bad_images = (BadImage("gone", "1.png"), 1), True
    lines = evaluate_runners([knows("a", 3)], dataset, PLAIN, batch_size=4).summary_lines()
    text = "\n".join(lines)
    assert "100.00%" in text and "no top-5: there are only 3 classes" in text and "1.png" in text
    assert "agree" not in text
    assert "top-5" in "\n".join(
        evaluate_runners([knows("a", 6)], labelled(6, 6), PLAIN, batch_size=4).summary_lines()
    )


def test_a_limit_is_spread_over_the_classes_of_a_sorted_folder(tmp_path):
    dataset = open_dataset("folder", "train", folder=make_image_folder(tmp_path, classes=4, train=5))
    few = limited(dataset, 4)
    assert [few[index][1] for index in range(len(few))] == [0, 1, 2, 3]
    assert len(limited(dataset, 99)) == 20
    assert few.fingerprint not in (dataset.fingerprint, limited(dataset, 5).fingerprint)
    assert spread(10, 3) == [0, 3, 6]
    assert Selection(dataset, [7])[0][1] == dataset[7][1]
    with pytest.raises(UsageError):
        limited(dataset, 0)


def test_a_network_with_another_number_of_classes_is_refused():
    with pytest.raises(UsageError, match="the network has 10 classes, list has 3"):
        check_classes(10, labelled(3, 3), "here")


def test_a_networks_runner_is_in_eval_mode():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 4)).train()
    run, images = model_runner(model, "m").run, torch.randn(5, 3, 8, 8)
    assert torch.equal(run(images), run(images))


# the command


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """A network for 10 classes at 32 px, with statistics of its own weights; says that digits trained it."""
    from finet_deploy.images import default_images
    from finet_deploy.untrained import prepare_untrained

    model = create_model("finet_small", num_groups=2, cifar=True, num_classes=10, seed=0)
    prepare_untrained(model, default_images(8, DIGITS), seed=0)
    training = {"dataset": "digits", "classes": [str(digit) for digit in range(10)]}
    path = tmp_path_factory.mktemp("checkpoint") / "model.safetensors"
    return save_checkpoint(model, path, preprocessing=DIGITS, training=training, trained=True)


def test_a_checkpoint_is_evaluated_on_the_data_that_it_was_trained_on(checkpoint, capsys, tmp_path):
    file = tmp_path / "predictions.csv"
    status, out, err = run_cli(
        capsys, "evaluate", checkpoint, "--limit", 40, "--fuse", "--predictions", file, "--json", "-q"
    )
    document = json.loads(out)
    assert (status, err) == (0, "")
    assert (document["dataset"], document["images"], document["classes"]) == ("digits", 40, 10)
    assert [row["name"] for row in document["rows"]] == ["checkpoint", "fused"]
    assert document["unanimous"] == 40
    rows = list(csv.DictReader(file.read_text().splitlines()))
    correct = sum(row["label"] == row["checkpoint"] for row in rows)
    assert (len(rows), document["rows"][0]["correct"]) == (40, correct)
    assert document["rows"][0]["top1"] == wilson(correct, 40).to_json_object()

    from finet_deploy.checkpoint import load_checkpoint

    model, val = load_checkpoint(checkpoint), open_dataset("digits", "val")
    chosen = [int(row["index"]) for row in rows]
    with torch.no_grad():
        said = model(torch.stack([DIGITS(limited(val, 40)[index][0]) for index in chosen])).argmax(1)
    assert [int(row["checkpoint"]) for row in rows] == said.tolist()


def test_a_missed_limit_exits_1_and_says_so_and_a_held_one_does_not(checkpoint, capsys):
    arguments = ["evaluate", checkpoint, "--limit", 20, "-q"]
    assert run_cli(capsys, *arguments, "--min-top1", 0, "--min-agreement", 1)[0] == 0
    status, out, err = run_cli(capsys, *arguments, "--min-top1", 0.99)
    assert status == FAILED
    assert "top-1" in out and "below 99.00%" in err


@pytest.mark.parametrize(
    ("name", "make"), [("cifar10", make_cifar), ("folder", make_image_folder), ("shards", make_shards)]
)
def test_any_data_set_can_be_evaluated_on(checkpoint, capsys, tmp_path, name, make):
    folder = make(tmp_path / "data", classes=10)
    status, out, err = run_cli(
        capsys, "evaluate", checkpoint, "--dataset", name, "--data", folder, "--json", "-q", "--batch-size", 8
    )
    assert status == 0
    assert json.loads(out)["images"] == {"cifar10": 20, "folder": 20, "shards": 9}[name]
    assert "classes have other names than in training: '0' was trained, 'class_0" in err


def test_wrong_calls_are_one_line(checkpoint, capsys, tmp_path):
    make_image_folder(tmp_path / "data", classes=3)
    (tmp_path / "data/val/class_001/0.png").write_bytes(b"")
    folder = ["--dataset", "folder", "--data", tmp_path / "data"]
    three = create_model("finet_small", cifar=True, num_classes=3, seed=0)
    save_checkpoint(three, tmp_path / "three.safetensors")
    for status, text, arguments in (
        (USAGE, "the network has 10 classes, folder has 3", [checkpoint, *folder]),
        (USAGE, "cifar10 needs a folder", [checkpoint, "--dataset", "cifar10"]),
        (USAGE, "nothing says which data set", [tmp_path / "three.safetensors"]),
        (USAGE, "--images has no meaning", [checkpoint, "--images", tmp_path]),
        (USAGE, "--formats and --against are for bundles", [checkpoint, "--formats", "onnx"]),
        (USAGE, "a folder, not a file", [checkpoint, "--predictions", tmp_path]),
        (USAGE, "'cifar' is not one of", [checkpoint, "--dataset", "cifar"]),
        (USAGE, "not in the range", [checkpoint, "--min-top1", "99"]),
        (USAGE, "no bundle", [tmp_path / "data"]),
        (FAILED, "class_001/0.png", [tmp_path / "three.safetensors", *folder]),
    ):
        line = error_line(capsys, status, "evaluate", *arguments, "-q").replace("not a bundle", "no bundle")
        assert text in line
    skipping = ["evaluate", tmp_path / "three.safetensors", *folder, "-q", "--skip-bad-images"]
    status, out, _ = run_cli(capsys, *skipping)
    assert status == 0
    assert "1 images could not be read" in out and "class_001/0.png" in out


def test_an_untrained_network_is_said_to_be_one(capsys, tmp_path):
    make_image_folder(tmp_path / "data", classes=3)
    names = ["finet_small", "--cifar", "--num-classes", 3, "--dataset", "folder", "--data", tmp_path / "data"]
    status, _, err = run_cli(capsys, "evaluate", *names, "-q")
    assert (status, "the network is untrained" in err) == (0, True)


def test_a_fused_checkpoint_needs_no_fusing(checkpoint, capsys, tmp_path):
    from finet_deploy.checkpoint import load_checkpoint
    from finet_deploy.fuse import fuse

    model = load_checkpoint(checkpoint)
    save_checkpoint(
        fuse(model), tmp_path / "fused.safetensors", config=model.model_config, preprocessing=DIGITS
    )
    arguments = ["evaluate", tmp_path / "fused.safetensors", "--dataset", "digits", "--limit", 10, "-q"]
    assert run_cli(capsys, *arguments)[0] == 0
    assert "holds a fused network" in error_line(capsys, USAGE, *arguments, "--fuse")


@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_exits_130_and_writes_nothing(monkeypatch, checkpoint, tmp_path, workers):
    arguments = ["evaluate", checkpoint, "--batch-size", 4, "--workers", workers, "--predictions", "out.csv"]
    if workers:  # the signal reaches them too
        status, err = interrupt_when(arguments, "[2/", tmp_path)
    else:
        status, err = interrupt_here_when(monkeypatch, arguments, "[2/", tmp_path)
    assert (status, "Traceback" in err) == (INTERRUPTED, False), err
    assert list(tmp_path.iterdir()) == []


def test_predictions_do_not_depend_on_workers_or_batches(checkpoint, capsys, tmp_path):
    texts = set()
    for workers, size in ((0, 64), (2, 7)):
        file = tmp_path / f"{workers}.csv"
        arguments = ["--limit", 30, "--workers", workers, "--batch-size", size, "--predictions", file, "-q"]
        assert run_cli(capsys, "evaluate", checkpoint, *arguments)[0] == 0
        texts.add(file.read_text())
    assert len(texts) == 1
    assert len(np.unique([line.split(",")[2] for line in texts.pop().splitlines()[1:]])) > 1


def test_a_random_data_set_is_guessed_by_chance():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 10))
    found = evaluate_runners([model_runner(model, "m")], random_dataset(400), PLAIN, batch_size=64)
    top1, top5 = found.rows[0].accuracy.top1, found.rows[0].accuracy.top5
    assert top5 is not None
    assert top1.low < 0.1 < top1.high and top5.low < 0.5 < top5.high
