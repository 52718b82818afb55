"""One training run between its start, or restart, and its end: what the loop calls beside taking steps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from finet_deploy.data import (
    Accuracy,
    Batch,
    Counts,
    count_correct,
    evaluation_batches,
    training_batches,
)
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.train.diagnose import NotFinite
from finet_deploy.train.distributed import Process
from finet_deploy.train.folder import (
    BEST_FILE,
    TrainResult,
    claim_folder,
    identity_of,
    training_record,
    write_best,
    write_recipe,
    write_result,
)
from finet_deploy.train.interrupt import Interrupt
from finet_deploy.train.learner import build_learner, micro_batch_size, refuse_single_values
from finet_deploy.train.logs import CsvLog, TensorBoardLog
from finet_deploy.train.reports import EpochReport, Observer, Silent, Start, StepReport, Watchers
from finet_deploy.train.schedule import lr_at, total_steps
from finet_deploy.train.state import STATE_FILE, Progress, restore, write_state
from finet_deploy.train.step import StepOutcome

if TYPE_CHECKING:
    from torch import nn

    from finet_deploy.data import ImageDataset, ShardBatches, TrainingBatches
    from finet_deploy.train.recipes import Recipe

__all__ = ["Run"]


class Run:
    """`open` first; then `learner` and `batches` are there, and `progress` says where to go on."""

    def __init__(
        self,
        recipe: Recipe,
        train_set: ImageDataset,
        val_set: ImageDataset,
        folder: Path,
        process: Process,
        interrupt: Interrupt,
        observer: Observer | None,
        save_every: int | None,
        workers: int,
        start: nn.Module | None = None,
    ) -> None:
        self.recipe, self.train_set, self.val_set, self.folder = recipe, train_set, val_set, folder
        self.process, self.interrupt = process, interrupt
        self.save_every, self.workers, self.start = save_every, workers, start
        self.observer: Observer = observer if observer is not None and process.main else Silent()
        self.watchers: Observer = Silent()
        self.progress = Progress(world_size=process.world_size)
        self._batches: TrainingBatches | ShardBatches | None = None
        self._tensorboard: TensorBoardLog | None = None

    @property
    def batches(self) -> TrainingBatches | ShardBatches:
        """The training split, once the run is open."""
        assert self._batches is not None  # `open` comes first
        return self._batches

    def open(self, *, resume: bool) -> None:
        """Everything that can be refused is refused here, and before a new folder is made."""
        process, recipe = self.process, self.recipe
        micro_batch = micro_batch_size(recipe, process)
        restarted = process.restart_count > 0
        claimed = process.on_main(lambda: claim_folder(self.folder, resume=resume, restarted=restarted))
        saved = process.broadcast_bytes(claimed)
        if recipe.qat and self.start is None and saved is None:
            raise UsageError(
                "quantization-aware training of an untrained network",
                do="give --init with a trained checkpoint",
            )
        config = recipe.model_config(len(self.train_set.classes))
        self.learner = build_learner(recipe, config, process, self.start)
        self._batches = training_batches(
            self.train_set,
            recipe.augmentation(),
            recipe.preprocessing(),
            batch_size=recipe.batch_size,
            seed=recipe.seed,
            workers=self.workers,
            rank=process.rank,
            world_size=process.world_size,
        )
        if micro_batch == 1 and not (recipe.sync_norm and process.world_size > 1):
            refuse_single_values(self.learner, recipe.image_size)
        self.identity = identity_of(recipe.to_json_object(), self.learner, self.train_set)
        if saved is not None:
            self.progress = restore(saved, self.learner, self.identity, self.folder / STATE_FILE)
        self._started = time.perf_counter() - self.progress.seconds
        process.on_main(self._open_logs)
        self._announce(resumed=saved is not None, asked=resume or restarted)

    def _open_logs(self) -> None:
        """Logs, recipe and a first state: a disk that is full or read-only shows now, not after the first epoch."""
        write_recipe(self.folder, self.identity.recipe)
        observers: list[Observer] = [CsvLog(self.folder)]
        if TensorBoardLog.available():
            self._tensorboard = TensorBoardLog(self.folder)
            observers.append(self._tensorboard)
        else:
            self.observer.note(
                "no TensorBoard logs: tensorboard is not installed (pip install 'finet-deploy[train]')"
            )
        self.watchers = Watchers([*observers, self.observer])
        spe, epochs = self.batches.num_batches, self.recipe.epochs
        total = total_steps(self.recipe, spe)
        self.watchers.started(Start(self.folder, self.progress.step, total, spe, epochs))
        write_state(self.folder / STATE_FILE, self.learner, self.progress, self.identity)

    def _announce(self, *, resumed: bool, asked: bool) -> None:
        progress, world_size = self.progress, self.process.world_size
        if asked:
            where = f"resumed after step {progress.step}" if resumed else "nothing was saved: started over"
            self.observer.note(f"{self.folder}: {where}")
        if progress.world_size != world_size:
            self.observer.note(
                f"started with {progress.world_size} processes, now {world_size}: sums are rounded in another order"
            )
            progress.world_size = world_size

    def count(self, outcome: StepOutcome, lr: float, skipped_images: tuple[str, ...]) -> None:
        """Book one step that was taken, and report it."""
        progress = self.progress
        progress.step += 1
        progress.loss_sum += outcome.loss
        progress.correct += outcome.correct
        progress.images += outcome.images
        progress.skipped_steps += outcome.skipped
        self._name_skipped(skipped_images)
        report = StepReport(
            step=progress.step,
            epoch=progress.epochs + 1,
            lr=lr,
            loss=outcome.loss,
            grad_norm=outcome.grad_norm,
            correct=outcome.correct,
            images=outcome.images,
            skipped=outcome.skipped,
        )
        self.watchers.step(report)

    def _name_skipped(self, names: tuple[str, ...]) -> None:
        for name in names:
            if name not in self.progress.skipped_images:
                self.progress.skipped_images.append(name)
                self.observer.note(f"skipped: {name}")

    def validate(self) -> None:
        """Accuracy on the validation split; the epoch is done when its row, its best and its state are written."""
        accuracy = self._accuracy()
        progress, spe = self.progress, self.batches.num_batches
        progress.epochs += 1
        progress.accuracy = accuracy
        best = progress.best_accuracy is None or accuracy.correct > progress.best_accuracy.correct
        if best:
            progress.best_accuracy, progress.best_epoch = accuracy, progress.epochs
        report = EpochReport(
            epoch=progress.epochs,
            step=progress.step,
            lr=lr_at(self.recipe, progress.step - 1, spe),
            train_loss=progress.loss_sum / spe,
            train_top1=progress.correct / max(1, progress.images),
            accuracy=accuracy,
            best=best,
            seconds=time.perf_counter() - self._started,
        )
        progress.loss_sum, progress.correct, progress.images = 0.0, 0, 0
        progress.skipped_images = self.process.gather(progress.skipped_images)

        def write() -> None:
            if best:
                training = training_record(self.identity.recipe, self.train_set, progress, accuracy)
                write_best(self.folder, self.learner, training)
            self.watchers.epoch(report)

        self.process.on_main(write)
        self.save()

    def _accuracy(self) -> Accuracy:
        """Of the weights that will be delivered; each process takes its part of the validation split."""
        process, model = self.process, self.learner.evaluated
        process.broadcast_model(model)  # of the running statistics, rank 0's count: they are what is saved
        batches = evaluation_batches(
            self.val_set,
            self.recipe.preprocessing(),
            batch_size=max(1, self.recipe.batch_size // process.world_size),
            workers=self.workers,
            rank=process.rank,
            world_size=process.world_size,
        )
        counts = count_correct(model, self._until_stopped(batches), process.device)
        stop = process.largest(self.interrupt.requested)
        if stop:  # the epoch stays unvalidated; the resumed run begins with its validation
            self.leave(stop)
        accuracy = Counts.from_tensor(process.sum(counts.to_tensor())).accuracy()
        if accuracy.not_finite:
            self.observer.note(f"{accuracy.not_finite} validation images have scores that are not finite")
        return accuracy

    def _until_stopped(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        for batch in batches:
            if self.interrupt.requested:
                return
            self._name_skipped(batch.skipped)
            yield batch._replace(images=batch.images.to(self.learner.dtype))

    def save(self) -> None:
        """Write the training state; all processes wait for it."""
        self.progress.seconds = time.perf_counter() - self._started
        path = self.folder / STATE_FILE
        try:
            self.process.on_main(lambda: write_state(path, self.learner, self.progress, self.identity))
        except NotFinite as error:
            raise self.explain(error, self.progress.step) from error

    def leave(self, number: int) -> NoReturn:
        """Save, then do what the signal asked for."""
        self.save()
        self.observer.saved(self.folder / STATE_FILE)
        self.interrupt.obey(number)

    def explain(self, error: NotFinite, step: int) -> FinetDeployError:
        """The error with all that the user wants to know: the step, the layer, and what there is to go back to."""
        progress = self.progress
        epoch = (step - 1) // self.batches.num_batches + 1
        good = "no epoch was finished"
        if progress.best_epoch:
            good = f"the last good checkpoint is {BEST_FILE} of epoch {progress.best_epoch}"
        return FinetDeployError(
            f"{error.what} at step {step} (epoch {epoch}): {error.culprit}",
            where=str(self.folder),
            do=f"{good}; try a lower --lr, a longer --warmup-epochs or --clip-grad-norm in a new folder",
        )

    def finish(self) -> TrainResult:
        """The checkpoint of the last weights, and the result."""
        assert self.progress.accuracy is not None  # narrows the type: an epoch, at least, was validated
        training = training_record(
            self.identity.recipe, self.train_set, self.progress, self.progress.accuracy
        )
        result = TrainResult.of(self.folder, self.progress)
        self.process.on_main(lambda: write_result(result, self.learner, self.progress, training))
        self.observer.saved(result.checkpoint)
        return result

    def close(self) -> None:
        """End what was opened, however the run ended."""
        if self._batches is not None:
            self._batches.close()  # the processes that read images
        if self._tensorboard is not None:
            self._tensorboard.close()
