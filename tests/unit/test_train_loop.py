"""Whole runs on a handful of digits: what they leave, what they refuse, and that they can be cut anywhere."""

from __future__ import annotations

import csv
import errno
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import finet_deploy.files
from finet_deploy import load_checkpoint
from finet_deploy.data import Batch, ImageDataset, evaluate_model, evaluation_batches
from finet_deploy.data.dataset import BadImage, Selection
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.train import EpochReport, Process, Silent, Start, TrainResult, train
from finet_deploy.train.learner import Learner
from finet_deploy.train.recipes import Recipe
from finet_deploy.train.run import Run
from tests.train_runs import Crash, CrashAt, assert_same_run, read_state_file, rows, tiny_recipe, tiny_sets

STEPS = 8  # 2 epochs of 64 images in batches of 16


class Notes(Silent):
    """Keeps everything that is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.saves: list[str] = []
        self.starts: list[Start] = []
        self.epochs: list[EpochReport] = []

    def started(self, start: Start) -> None:
        self.starts.append(start)

    def epoch(self, report: EpochReport) -> None:
        self.epochs.append(report)

    def saved(self, path: Path) -> None:
        self.saves.append(path.name)

    def note(self, text: str) -> None:
        self.notes.append(text)


def run(folder: Path, **options: object) -> TrainResult:
    recipe = options.pop("recipe", None) or tiny_recipe()
    return train(recipe, *tiny_sets(), folder, **options)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def ctrl_c_is_heard():
    """A shell starts its background jobs with SIGINT ignored, and ignored it would stay."""
    previous = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, previous)


def as_json(recipe: Recipe) -> object:
    return json.loads(json.dumps(recipe.to_json_object()))


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Notes, TrainResult]:
    folder, notes = tmp_path_factory.mktemp("reference") / "run", Notes()
    return folder, notes, run(folder, observer=notes)


def test_a_run_leaves_its_recipe_logs_state_checkpoints_and_result(reference) -> None:
    folder, notes, result = reference
    assert {path.name for path in folder.iterdir()} == {
        "recipe.json", "log.csv", "steps.csv", "tensorboard", "state.pt",
        "model.safetensors", "best.safetensors", "result.json",
    }  # fmt: skip
    assert json.loads((folder / "recipe.json").read_text()) == as_json(tiny_recipe())
    assert [row["step"] for row in rows(folder / "steps.csv")] == [str(n) for n in range(1, STEPS + 1)]
    assert [row["epoch"] for row in rows(folder / "log.csv")] == ["1", "2"]
    document = json.loads((folder / "result.json").read_text())
    assert document["accuracy"] == result.accuracy.to_json_object()
    assert (document["steps"], document["epochs"], document["processes"]) == (STEPS, 2, 1)
    assert (result.steps, result.epochs, result.checkpoint) == (STEPS, 2, folder / "model.safetensors")
    assert notes.saves == ["model.safetensors"]
    assert [report.epoch for report in notes.epochs] == [1, 2]
    assert notes.starts == [Start(folder, 0, STEPS, STEPS // 2, 2)]


def test_the_checkpoint_is_the_average_and_has_the_accuracy_that_it_says(reference) -> None:
    folder, _, result = reference
    model = load_checkpoint(result.checkpoint)
    state = read_state_file(folder)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[f"/ema/module.{name}"]), name
    assert not torch.equal(model.fc2.weight, state["/model/fc2.weight"])
    batches = evaluation_batches(tiny_sets()[1], tiny_recipe().preprocessing(), batch_size=7)
    assert evaluate_model(model, batches, "cpu") == result.accuracy
    training = model.weights_origin["training"]
    assert training["recipe"] == as_json(tiny_recipe())
    assert training["classes"] == [str(n) for n in range(10)]
    assert (training["dataset"], training["epoch"], training["step"]) == ("digits", 2, STEPS)
    assert training["accuracy"] == result.accuracy.to_json_object()
    assert model.weights_origin["trained"] is True


def test_best_is_the_first_of_the_best_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Epochs that have 5, 9, 9 and 2 images right: the second one is the best."""
    right = Run._accuracy
    found = iter([5, 9, 9, 2])

    def accuracy(self: Run):
        from finet_deploy.data import Counts

        right(self)
        return Counts(next(found), None, 40).accuracy()

    monkeypatch.setattr(Run, "_accuracy", accuracy)
    notes = Notes()
    result = run(tmp_path / "run", recipe=tiny_recipe(epochs=4), observer=notes)
    assert [report.best for report in notes.epochs] == [True, True, False, False]
    assert (result.best_epoch, result.best_accuracy.correct, result.accuracy.correct) == (2, 9, 2)
    assert load_checkpoint(result.best).weights_origin["training"]["epoch"] == 2


def test_the_same_seed_is_the_same_run_and_the_callers_generator_is_untouched(
    reference, tmp_path: Path
) -> None:
    torch.manual_seed(99)
    expected = torch.rand(3)
    torch.manual_seed(99)
    run(tmp_path / "run")
    assert torch.equal(torch.rand(3), expected)
    assert_same_run(tmp_path / "run", reference[0])


def test_another_seed_is_another_run(reference, tmp_path: Path) -> None:
    run(tmp_path / "run", recipe=tiny_recipe(seed=1))
    assert rows(tmp_path / "run" / "steps.csv")[0] != rows(reference[0] / "steps.csv")[0]


@settings(max_examples=3, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.integers(1, STEPS), min_size=1, max_size=2, unique=True).map(sorted),
    st.sampled_from([None, 1, 3]),
)
@example([4], None)  # after an epoch's last step, before its validation
@example([2, 7], 3)
def test_a_run_cut_at_any_step_goes_on_to_the_bit(reference, tmp_path_factory, cuts, save_every) -> None:
    folder = tmp_path_factory.mktemp("cut") / "run"
    for number, step in enumerate(cuts):
        with pytest.raises(Crash):
            run(folder, observer=CrashAt(step), save_every=save_every, resume=number > 0)
    notes = Notes()
    run(folder, resume=True, observer=notes, save_every=save_every)
    saved = [step for step in range(cuts[-1]) if step % 4 == 0 or (save_every and step % save_every == 0)]
    assert notes.starts[0].step == max(saved)
    assert notes.notes == [f"{folder}: resumed after step {max(saved)}"]
    assert_same_run(folder, reference[0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_at_the_step_boundary_and_the_rest_follows_to_the_bit(
    reference, tmp_path: Path, number
) -> None:
    class Send(Notes):
        def step(self, report) -> None:
            if report.step == 1:
                os.kill(os.getpid(), number)

    class Stopped(Exception):
        """Stands for what the command makes of the signal."""

    def stop(_number: int, _frame: object) -> None:
        raise Stopped

    previous, notes = signal.signal(number, stop), Send()
    try:
        with pytest.raises(Stopped):
            run(tmp_path / "run", observer=notes)
    finally:
        signal.signal(number, previous)
    assert notes.saves == ["state.pt"]
    assert read_state_file(tmp_path / "run")["/progress/step"] == 2  # it came after step 1 was agreed on
    run(tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", reference[0])


def test_a_signal_during_validation_is_not_kept_waiting(reference, tmp_path: Path, monkeypatch) -> None:
    """The steps of the epoch are saved, its validation is made up for by the resumed run."""

    class Slow(Selection):
        reads = 0

        def __getitem__(self, index: int):
            Slow.reads += 1
            if Slow.reads == 1:
                os.kill(os.getpid(), signal.SIGINT)
            return super().__getitem__(index)

    train_set, val_set = tiny_sets(val=40)
    slow = Slow(val_set, range(40))
    with pytest.raises(KeyboardInterrupt):
        train(tiny_recipe(), train_set, slow, tmp_path / "run")
    assert Slow.reads == 16  # the batch at hand, of 40 images
    state = read_state_file(tmp_path / "run")
    assert (state["/progress/step"], state["/progress/epochs"]) == (4, 0)
    assert rows(tmp_path / "run" / "log.csv") == []
    run(tmp_path / "run", resume=True)
    assert_same_run(tmp_path / "run", reference[0])


def test_a_finished_run_resumes_to_its_result(reference, tmp_path: Path) -> None:
    run(tmp_path / "run")
    (tmp_path / "run" / "model.safetensors").unlink()
    (tmp_path / "run" / "result.json").unlink()
    result = run(tmp_path / "run", resume=True)
    assert result.accuracy == reference[2].accuracy
    assert_same_run(tmp_path / "run", reference[0])


def test_readers_in_other_processes_change_nothing(reference, tmp_path: Path) -> None:
    run(tmp_path / "run", workers=2)
    assert_same_run(tmp_path / "run", reference[0])


def test_a_folder_in_use_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"output already exists .*--resume"):
        run(tmp_path)
    with pytest.raises(UsageError, match=r"output already exists"):
        run(tmp_path, process=Process(restart_count=1))
    with pytest.raises(UsageError, match=r"no run to resume .*leave --resume out"):
        run(tmp_path, resume=True)
    with pytest.raises(UsageError, match="not a folder"):
        run(tmp_path / "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_restart_by_torchrun_resumes_by_itself(reference, tmp_path: Path) -> None:
    with pytest.raises(Crash):
        run(tmp_path / "run", observer=CrashAt(6))
    notes = Notes()
    run(tmp_path / "run", process=Process(restart_count=1), observer=notes)
    assert notes.notes == [f"{tmp_path / 'run'}: resumed after step 4"]
    assert_same_run(tmp_path / "run", reference[0])


def test_a_run_killed_before_its_first_state_starts_over(reference, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.json").write_text("{}")
    notes = Notes()
    run(folder, resume=True, observer=notes)
    assert notes.notes == [f"{folder}: nothing was saved: started over"]
    assert_same_run(folder, reference[0])


def test_another_recipe_network_or_data_set_is_refused_and_the_state_stays(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(Crash):
        run(folder, observer=CrashAt(5))
    before = (folder / "state.pt").read_bytes()
    with pytest.raises(UsageError, match=r"another one: it has epochs: 2, not 3; lr: 0\.02, not 0\.5 \["):
        run(folder, resume=True, recipe=tiny_recipe(epochs=3, lr=0.5))
    with pytest.raises(UsageError, match=r"model: finet_small, not finet_large"):
        run(folder, resume=True, recipe=tiny_recipe(model="finet_large"))
    with pytest.raises(UsageError, match=r"the dataset's fingerprint: \w+, not \w+ \["):
        train(tiny_recipe(), *tiny_sets(train=63), folder, resume=True)
    (folder / "state.pt").write_bytes(before[: len(before) // 2])
    with pytest.raises(FinetDeployError, match=r"truncated or not a training state.*state\.pt"):
        run(folder, resume=True)
    assert load_checkpoint(folder / "best.safetensors")


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"batch_size": 1}, "one value per channel"),
        ({"accumulate": 16}, "one value per channel"),
        ({"batch_size": 65}, "batch size 65, but digits has 64 images"),
    ],
)
def test_a_batch_too_small_or_too_large_is_refused_before_anything_is_written(
    tmp_path: Path, changes, found
) -> None:
    with pytest.raises(UsageError, match=found):
        run(tmp_path / "run", recipe=tiny_recipe(**changes))
    assert not (tmp_path / "run").exists()


def test_a_nan_ends_the_run_with_step_layer_and_the_last_good_checkpoint(tmp_path: Path, monkeypatch) -> None:
    """Images of the second epoch are so large that the network overflows."""
    folder = tmp_path / "run"
    whole = Learner.to_device
    seen = []

    def poisoned(self: Learner, images: torch.Tensor, labels: torch.Tensor):
        seen.append(1)
        return whole(self, images * (1e38 if len(seen) == 6 else 1), labels)

    monkeypatch.setattr(Learner, "to_device", poisoned)
    with pytest.raises(FinetDeployError) as caught:
        run(folder)
    text = str(caught.value)
    assert "the loss is nan at step 6 (epoch 2): first in the output of layer" in text
    assert f"[{folder}]; the last good checkpoint is best.safetensors of epoch 1" in text
    assert load_checkpoint(folder / "best.safetensors").weights_origin["training"]["epoch"] == 1
    assert read_state_file(folder)["/progress/step"] == 4
    assert [row["step"] for row in rows(folder / "steps.csv")] == ["1", "2", "3", "4", "5"]


def test_a_nan_in_the_first_epoch_says_that_there_is_nothing_to_go_back_to(tmp_path: Path) -> None:
    with pytest.raises(
        FinetDeployError, match=r"at step \d \(epoch 1\): .*no epoch was finished; try a lower --lr"
    ):
        run(tmp_path / "run", recipe=tiny_recipe(lr=1e30, warmup_epochs=0.0))


class Bad(Selection):
    """One image of each split cannot be read."""

    skip_bad = True

    def __init__(self, dataset: ImageDataset, name: str) -> None:
        super().__init__(dataset, range(len(dataset)))
        self._bad, self.skip_bad_images = name, self.skip_bad

    def __getitem__(self, index: int):
        if index == 5:
            raise BadImage("cannot read image: no data", self._bad)
        return super().__getitem__(index)


def test_unreadable_images_are_named_once_and_counted(tmp_path: Path, monkeypatch) -> None:
    train_set, val_set = (Bad(part, name) for part, name in zip(tiny_sets(), ("train/a.png", "val/b.png")))
    notes = Notes()
    result = train(tiny_recipe(), train_set, val_set, tmp_path / "run", observer=notes)
    assert notes.notes == ["skipped: train/a.png", "skipped: val/b.png"]
    assert (result.accuracy.skipped, result.accuracy.images) == (1, 39)
    document = json.loads((tmp_path / "run" / "result.json").read_text())
    assert document["skipped_images"] == ["train/a.png", "val/b.png"]
    monkeypatch.setattr(Bad, "skip_bad", False)
    with pytest.raises(FinetDeployError, match=r"cannot read image.*train/a\.png"):
        train(tiny_recipe(), Bad(tiny_sets()[0], "train/a.png"), val_set, tmp_path / "second")


@pytest.mark.parametrize("file", ["recipe.json", "state.pt", "best.safetensors", "result.json"])
def test_a_full_disk_at_any_file_is_one_error_and_the_run_goes_on_later(
    reference, tmp_path, monkeypatch, file
) -> None:
    folder, rename, seen = tmp_path / "run", os.replace, []

    def full(source: str, target: str | Path) -> None:
        seen.append(Path(target).name)
        # The state's third writing is the second epoch's: the first epoch's stays.
        if Path(target).name == file and (file != "state.pt" or seen.count(file) == 3):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(finet_deploy.files.os, "replace", full)
        with pytest.raises(FinetDeployError, match=rf"No space left on device.*{file}.*free some space"):
            run(folder)
    assert not [path for path in folder.iterdir() if path.suffix == ".tmp"]
    if file != "recipe.json":
        run(folder, resume=True)
        assert_same_run(folder, reference[0])


@pytest.fixture
def small_disk(tmp_path: Path):
    """A real file system with room for one state and two checkpoints, not for the next state beside them."""
    mount = tmp_path / "disk"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=34m", "tmpfs", str(mount)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a file system is not allowed here")
    yield mount
    subprocess.run(["umount", str(mount)], check=True)


def test_a_disk_that_is_really_full_leaves_the_last_good_state_and_checkpoint(
    reference, small_disk: Path, tmp_path: Path
) -> None:
    folder = small_disk / "run"
    with pytest.raises(FinetDeployError, match=r"cannot write: No space left on device.*free some space"):
        run(folder)
    step = read_state_file(folder)["/progress/step"]
    assert step in (0, 4)
    subprocess.run(["mount", "-o", "remount,size=200m", str(small_disk)], check=True)
    run(folder, resume=True)
    assert_same_run(folder, reference[0])


def test_tensorboard_is_missed_aloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import finet_deploy.train.logs as logs

    monkeypatch.setattr(logs.importlib.util, "find_spec", lambda name: None)
    notes = Notes()
    run(tmp_path / "run", observer=notes, recipe=tiny_recipe(epochs=1))
    assert notes.notes == [
        "no TensorBoard logs: tensorboard is not installed (pip install 'finet-deploy[train]')"
    ]
    assert not (tmp_path / "run" / "tensorboard").exists()


def test_the_epochs_row_sums_up_its_steps(reference) -> None:
    folder = reference[0]
    with (folder / "steps.csv").open() as stream:
        steps = [row for row in csv.DictReader(stream) if row["epoch"] == "2"]
    row = rows(folder / "log.csv")[1]
    assert float(row["train_loss"]) == pytest.approx(sum(float(step["loss"]) for step in steps) / 4)
    assert float(row["train_top1"]) == sum(int(step["correct"]) for step in steps) / 64
    assert float(row["lr"]) == float(steps[-1]["lr"])


def test_scores_that_are_not_finite_in_validation_are_told(tmp_path: Path, monkeypatch) -> None:
    whole = Run._until_stopped

    def spoiled(self: Run, batches):
        for batch in whole(self, batches):
            yield Batch(
                batch.images * torch.tensor([torch.inf] + [1.0] * (len(batch.images) - 1)).view(-1, 1, 1, 1),
                *batch[1:],
            )

    monkeypatch.setattr(Run, "_until_stopped", spoiled)
    notes = Notes()
    result = run(tmp_path / "run", observer=notes, recipe=tiny_recipe(epochs=1))
    assert result.accuracy.not_finite == 3
    assert notes.notes == ["3 validation images have scores that are not finite"]
