"""`finet-deploy train`."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finet_deploy.commands.console import Console, output_options
from finet_deploy.commands.recipe_options import GroupedCommand, changed_recipe, image_workers, recipe_options
from finet_deploy.errors import UsageError
from finet_deploy.train.recipes import DEFAULT_RECIPE, load_recipe

if TYPE_CHECKING:
    from finet_deploy.train import TrainResult
    from finet_deploy.train.recipes import Recipe

EPILOG = """\b
Examples:
  finet-deploy train --recipe digits
  finet-deploy train finet_large --recipe paper-cifar --data data/ --download
  finet-deploy train --recipe digits --num-groups 1 --epochs 5 --seed 3 -o runs/g1
  finet-deploy train --recipe digits --qat --init digits.safetensors --epochs 3 --lr 0.001 -o runs/qat
  finet-deploy train --resume -o runs/g1
  torchrun --nproc-per-node 4 -m finet_deploy train --recipe paper-imagenet --data imagenet/
"""
RECIPE_FILE = "recipe.json"


@click.command("train", cls=GroupedCommand, epilog=EPILOG)
@click.argument("model", required=False)
@click.option(
    "--recipe", metavar="NAME|FILE", help=f"A recipe below, or a TOML file (default {DEFAULT_RECIPE})."
)
@click.option("-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="The run's folder.")
@click.option(
    "--data", type=click.Path(path_type=Path), metavar="DIR", help="Where the data set lies, or shall lie."
)
@click.option("--download", is_flag=True, help="Fetch the data set if it is not there.")
@click.option(
    "--init", type=click.Path(path_type=Path), metavar="FILE", help="Start from this checkpoint's weights."
)
@click.option("--resume", is_flag=True, help="Go on with the run in -o, to the bit on a CPU.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@click.option("--workers", type=click.IntRange(0), metavar="N", help="Processes that read images.")
@click.option(
    "--save-every", type=click.IntRange(1), metavar="STEPS", help="Save also between epochs, this often."
)
@click.option("--skip-bad-images", is_flag=True, help="Leave unreadable images out, name and count them.")
@recipe_options
@output_options
def command(
    model: str | None,
    recipe: str | None,
    output: Path | None,
    data: Path | None,
    download: bool,
    init: Path | None,
    resume: bool,
    device: str,
    workers: int | None,
    save_every: int | None,
    skip_bad_images: bool,
    changes: dict[str, Any],
    console: Console,
) -> None:
    """Train MODEL, or the recipe's network, into a checkpoint that the other commands take.

    The run's folder gets the recipe as it was used, logs (CSV, TensorBoard), the state to resume from, the
    checkpoints of the last and the best epoch, and the result. Under torchrun, all processes work on one batch.
    """
    if os.environ.get("RANK", "0") != "0":
        console = Console(quiet=True)  # under torchrun only the first process speaks
    chosen = _recipe(model, recipe, output if resume else None, changes, console)
    folder = output or Path("runs", "train", chosen.title)
    if resume and output is None:
        console.note(f"--resume without -o: {folder}")

    from finet_deploy.commands.train_progress import TrainProgress
    from finet_deploy.data import open_dataset
    from finet_deploy.train import Process, train

    process = Process.from_environment(device)
    if download and process.world_size > 1:
        do = "download first, with one process: `finet-deploy train --epochs 1 --download`"
        raise UsageError("--download under torchrun: the processes would write over each other", do=do)
    options = {"folder": data, "download": download, "skip_bad_images": skip_bad_images}
    train_set = open_dataset(chosen.dataset, "train", **options)  # type: ignore[arg-type]
    val_set = open_dataset(chosen.dataset, "val", **options)  # type: ignore[arg-type]
    if process.main:
        title = chosen.model_config(len(train_set.classes)).title
        console.note(
            f"{title} on {train_set.name}: {len(train_set)} images to train on, {len(val_set)} held out, "
            f"{len(train_set.classes)} classes; device {process.device}; run folder {folder}"
        )
    start = None
    if init is not None and not resume:
        from finet_deploy.checkpoint import load_checkpoint

        start = load_checkpoint(init)
        console.note(f"start from {init}")
    with TrainProgress(console) as progress:
        result = train(
            chosen,
            train_set,
            val_set,
            folder,
            resume=resume,
            process=process,
            observer=progress,
            save_every=save_every,
            workers=image_workers(chosen.dataset, workers),
            start=start,
        )
    if process.main:
        _tell(result, chosen, data, console)


def _recipe(
    model: str | None, name: str | None, resumed: Path | None, changes: dict[str, Any], console: Console
) -> Recipe:
    """The recipe by name, or of the run to resume, with the network and the flags that were given."""
    if name is None and resumed is not None and (resumed / RECIPE_FILE).is_file():
        recipe = load_recipe(resumed / RECIPE_FILE)
        console.note(f"recipe of the run in {resumed}: {recipe.name}")
    else:
        recipe = load_recipe(name or DEFAULT_RECIPE, model)
    if model is not None:
        changes = {"model": model, **changes}
    return changed_recipe(recipe, changes, console)


def _tell(result: TrainResult, recipe: Recipe, data: Path | None, console: Console) -> None:
    accuracy, best = result.accuracy, result.best_accuracy
    skipped = f", {accuracy.skipped} skipped" if accuracy.skipped else ""
    console.result(f"top-1       {accuracy.top1} of {accuracy.images} held-out images{skipped}")
    if accuracy.top5 is not None:
        console.result(f"top-5       {accuracy.top5}")
    console.result(f"best epoch  {result.best_epoch}: top-1 {best.top1}, chosen on these images")
    console.result(f"trained     {result.epochs} epochs, {result.steps} steps, {result.seconds:.0f} s")
    console.result(f"checkpoint  {result.checkpoint}")
    checkpoint = shlex.quote(str(result.checkpoint))
    where = f" --data {shlex.quote(str(data))}" if data is not None else ""
    console.note(f"next: finet-deploy evaluate {checkpoint}{where}")
    console.note(
        f"      finet-deploy export {checkpoint} --fuse -o bundles/{shlex.quote(result.folder.name)}"
    )
    console.document(
        {
            "folder": str(result.folder),
            "checkpoint": str(result.checkpoint),
            "best": str(result.best),
            "epochs": result.epochs,
            "steps": result.steps,
            "accuracy": accuracy.to_json_object(),
            "best_accuracy": best.to_json_object(),
            "best_epoch": result.best_epoch,
            "seconds": result.seconds,
            "recipe": recipe.to_json_object(),
        }
    )
