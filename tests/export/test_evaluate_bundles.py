"""`evaluate` on bundles: every file in its own runtime, with the same predictions as the checkpoint it came from."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from finet_deploy.checkpoint import load_checkpoint, save_checkpoint
from finet_deploy.data import open_dataset
from finet_deploy.data.opening import limited
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.evaluate import bundle_runners, evaluate_bundle
from finet_deploy.evaluate import runners as runners_module
from finet_deploy.export import Bundle, export, read_bundle
from finet_deploy.images import Preprocessing
from finet_deploy.zoo import create_model
from tests.cli import INTERRUPTED, USAGE, error_line, interrupt_here_when, run_cli

DIGITS = Preprocessing(32, 32)
FORMATS = ("pte", "onnx", "ptl")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """`model.safetensors` (10 classes, 32 px, statistics from digits) and `bundle`, exported from it."""
    from finet_deploy.untrained import prepare_untrained

    folder = tmp_path_factory.mktemp("made")
    train = open_dataset("digits", "train")
    model = create_model("finet_small", num_groups=2, cifar=True, num_classes=10, seed=0)
    prepare_untrained(model, torch.stack([DIGITS(train[index][0]) for index in range(16)]), seed=0)
    training = {"dataset": "digits"}
    save_checkpoint(
        model, folder / "model.safetensors", preprocessing=DIGITS, training=training, trained=True
    )
    export(load_checkpoint(folder / "model.safetensors"), folder / "bundle", preprocessing=DIGITS)
    return folder


def test_all_formats_predict_what_the_checkpoint_predicts(made, capsys, tmp_path):
    file = tmp_path / "out.csv"
    status, out, err = run_cli(
        capsys,
        *("evaluate", made / "bundle", "--against", made / "model.safetensors"),
        *("--predictions", file, "--min-agreement", 1, "--json", "-q"),
    )
    document = json.loads(out)
    assert (status, err) == (0, "")
    assert [row["name"] for row in document["rows"]] == ["checkpoint", *FORMATS]
    runtimes = [row["runtime"].split()[0] for row in document["rows"][1:]]
    assert runtimes == ["executorch", "onnxruntime", "torch_mobile"]
    assert document["unanimous"] == document["images"] == 359
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert len({row["pte"] for row in rows}) > 1  # not one class for all
    assert len({row["correct"] for row in document["rows"]}) == 1


def test_chunks_of_images_change_nothing(made, monkeypatch):
    bundle, dataset = read_bundle(made / "bundle"), limited(open_dataset("digits", "val"), 20)
    told: list[str] = []
    whole = evaluate_bundle(bundle, dataset, formats=["onnx"])
    monkeypatch.setattr(runners_module, "MAX_IMAGES", 7)
    parts = evaluate_bundle(bundle, dataset, formats=["onnx"], tell=told.append)
    assert parts.rows[0].predictions.tolist() == whole.rows[0].predictions.tolist()
    assert told == ["onnx: 7 of 20 images", "onnx: 14 of 20 images", "onnx: 20 of 20 images"]


def test_a_files_scores_are_the_networks(made):
    (runner,) = bundle_runners(read_bundle(made / "bundle"), ["onnx"])
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = load_checkpoint(made / "model.safetensors")(images)
    torch.testing.assert_close(runner.run(images), expected, rtol=1e-3, atol=1e-4)


def test_another_networks_predictions_are_seen_to_differ_and_it_is_said_to_be_another(made, capsys, tmp_path):
    other = create_model("finet_small", num_groups=2, cifar=True, num_classes=10, seed=5)
    save_checkpoint(other, tmp_path / "other.safetensors", preprocessing=DIGITS, trained=True)
    status, out, err = run_cli(
        capsys,
        *("evaluate", made / "bundle", "--dataset", "digits", "--formats", "onnx", "--limit", 60),
        *("--against", tmp_path / "other.safetensors", "--min-agreement", 0.999, "-q"),
    )
    assert status == 1
    assert "not exported from the file" in err and "of the images agree, below 99.90%" in err
    assert "all 2 predict the same class on" in out


def test_wrong_calls_are_one_line(made, capsys, tmp_path):
    bundle = made / "bundle"
    digits = ["--dataset", "digits"]
    for text, arguments in (
        ("unknown format 'onx'", [bundle, *digits, "--formats", "onx"]),
        ("leave the options out", [bundle, *digits, "--se"]),
        ("--fuse and --device are for checkpoints", [bundle, *digits, "--fuse"]),
    ):
        assert text in error_line(capsys, USAGE, "evaluate", *arguments, "-q")
    without = Path(shutil.copytree(bundle, tmp_path / "copy"))
    manifest = json.loads((without / "manifest.json").read_text())
    del manifest["artifacts"]["pte"]
    manifest["source"]["dataset"] = None
    (without / "manifest.json").write_text(json.dumps(manifest))
    line = error_line(capsys, USAGE, "evaluate", without, *digits, "--formats", "pte", "-q")
    assert "no 'pte' file" in line
    assert "nothing says which data set" in error_line(capsys, USAGE, "evaluate", without, "-q")


def test_a_bundle_of_other_classes_or_without_preprocessing_is_refused(pristine, made):
    dataset = limited(open_dataset("digits", "val"), 4)
    with pytest.raises(FinetDeployError, match="does not say how a picture becomes its input"):
        evaluate_bundle(pristine, dataset)
    bundle = read_bundle(made / "bundle")
    entry = bundle.manifest.preprocessing
    assert entry is not None
    small = msgspec.structs.replace(entry, resize=16, crop=16)
    with pytest.raises(FinetDeployError, match="its preprocessing makes 16 px"):
        evaluate_bundle(
            Bundle(bundle.path, msgspec.structs.replace(bundle.manifest, preprocessing=small)), dataset
        )
    five = Bundle(pristine.path, msgspec.structs.replace(pristine.manifest, preprocessing=small))
    with pytest.raises(UsageError, match="the network has 5 classes, digits has 10"):
        evaluate_bundle(five, dataset)


def test_a_file_that_crashes_its_runtime_is_one_error(made, tmp_path):
    copy = Path(shutil.copytree(made / "bundle", tmp_path / "copy"))
    bundle = read_bundle(copy)
    (copy / "model.onnx").write_bytes(b"changed after it was checked")
    with pytest.raises(FinetDeployError, match=r"model.onnx"):
        evaluate_bundle(bundle, limited(open_dataset("digits", "val"), 4), formats=["onnx"])


def test_ctrl_c_between_runtimes_exits_130_and_writes_nothing(monkeypatch, made, tmp_path):
    arguments = ["evaluate", made / "bundle", "--dataset", "digits", "--formats", "onnx,pte"]
    arguments += ["--predictions", "out.csv"]
    status, err = interrupt_here_when(monkeypatch, arguments, "[1/2]", tmp_path)
    assert (status, "Traceback" in err) == (INTERRUPTED, False), err
    assert list(tmp_path.iterdir()) == []


def test_the_dataset_and_threads_do_not_change_the_figures(made):
    bundle, dataset = read_bundle(made / "bundle"), limited(open_dataset("digits", "val"), 12)
    one, two = (evaluate_bundle(bundle, dataset, formats=["ptl"], threads=threads) for threads in (1, 2))
    assert np.array_equal(one.rows[0].predictions, two.rows[0].predictions)
