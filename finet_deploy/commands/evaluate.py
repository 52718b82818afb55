"""`finet-deploy evaluate`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finet_deploy.commands.console import Console, output_options
from finet_deploy.commands.source import ModelOptions, load_source, model_options
from finet_deploy.data.names import DATASETS, dataset_info
from finet_deploy.errors import UsageError
from finet_deploy.files import atomic_write_text

if TYPE_CHECKING:
    from torch import nn

    from finet_deploy.data import ImageDataset
    from finet_deploy.evaluate import Evaluation
    from finet_deploy.export import Bundle

EPILOG = """\b
Examples:
  finet-deploy evaluate runs/train/digits/model.safetensors --fuse
  finet-deploy evaluate bundles/digits --against runs/train/digits/model.safetensors
  finet-deploy evaluate bundles/mine --dataset folder --data pictures/ --formats onnx --predictions out.csv
  finet-deploy evaluate timm:mobilenetv3_small_075 --pretrained --dataset imagenet --data imagenet/ --limit 5000
"""
FRACTION = click.FloatRange(0, 1)


@dataclass(frozen=True)
class _Options:
    """What the command was given, but the source and the network's options."""

    dataset: str | None
    data: Path | None
    download: bool
    limit: int | None
    split: str
    formats: str | None
    against: str | None
    fuse_model: bool
    device: str
    batch_size: int
    workers: int
    threads: int
    skip_bad_images: bool


@click.command("evaluate", epilog=EPILOG)
@click.argument("source")
@click.option("--dataset", type=click.Choice(list(DATASETS)), help="Default: the one it was trained on.")
@click.option("--data", type=click.Path(path_type=Path), metavar="DIR", help="Where the data set lies.")
@click.option("--download", is_flag=True, help="Fetch what is missing of cifar10 or cifar100.")
@click.option(
    "--split", type=click.Choice(["val", "train"]), default="val", show_default=True, help="Which images."
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="At most N images, evenly spread.")
@click.option("--formats", metavar="LIST", help="Of a bundle: comma-separated (default all that it has).")
@click.option("--against", metavar="CHECKPOINT", help="Of a bundle: compare its predictions with this one's.")
@click.option("--fuse", "fuse_model", is_flag=True, help="Of a checkpoint: its fused form too.")
@click.option("--predictions", type=click.Path(path_type=Path), metavar="FILE", help="Write them as CSV.")
@click.option("--min-top1", type=FRACTION, metavar="SHARE", help="Exit 1 if a top-1 is below, such as 0.99.")
@click.option("--min-agreement", type=FRACTION, metavar="SHARE", help="Exit 1 if fewer images agree in all.")
@click.option("--skip-bad-images", is_flag=True, help="Leave unreadable images out, and count them.")
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True, help="Of a checkpoint.")
@click.option("--workers", type=click.IntRange(0), default=0, show_default=True, help="Reading processes.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Of a file's runtime.")
@model_options
@output_options
def command(
    source: str,
    predictions: Path | None,
    min_top1: float | None,
    min_agreement: float | None,
    options: ModelOptions,
    console: Console,
    **given: Any,
) -> int:
    """Top-1 and top-5 of SOURCE on held-out images, with 95 % intervals.

    SOURCE is a checkpoint, a network's name (with --pretrained), or a bundle's folder: then each of its files is run
    by its own runtime, and their predictions are compared.
    """
    chosen = _Options(**given)
    _refuse_misplaced(source, chosen, options, predictions)
    if Path(source).is_dir():
        evaluation = _evaluate_bundle(Path(source), chosen, options, console)
    else:
        evaluation = _evaluate_network(source, chosen, options, console)
    if predictions is not None:
        atomic_write_text(predictions, evaluation.predictions_csv())
    console.document({"source": source, "split": chosen.split, **evaluation.to_json_object()})
    for line in evaluation.summary_lines():
        console.result(line)
    return _verdict(evaluation, min_top1, min_agreement, console)


def _refuse_misplaced(source: str, chosen: _Options, options: ModelOptions, predictions: Path | None) -> None:
    """Options that have no meaning here; and an output that cannot be written, before the work and not after it."""
    bundle = Path(source).is_dir()
    if options.images is not None:
        raise UsageError("--images has no meaning here", do="give --dataset folder --data DIR")
    if bundle and (chosen.fuse_model or chosen.device != "cpu"):
        raise UsageError("--fuse and --device are for checkpoints", where=source, do="leave them out")
    if not bundle and (chosen.formats is not None or chosen.against is not None):
        raise UsageError("--formats and --against are for bundles", where=source, do="leave them out")
    if predictions is not None and predictions.is_dir():
        raise UsageError("a folder, not a file", where=str(predictions), do="name a file for --predictions")


def _evaluate_network(source: str, chosen: _Options, options: ModelOptions, console: Console) -> Evaluation:
    from finet_deploy.evaluate import check_classes, evaluate_runners, model_runner

    loaded = load_source(source, options, console)
    dataset = _open(chosen, _trained_on(loaded.origin), source)
    check_classes(loaded.config.num_classes, dataset, source)
    _warn(loaded.origin, dataset, console)
    device = _device(chosen.device)
    # The fused form is made first: it is made on the CPU, and moving a network moves it in place.
    fused = [_fused(loaded.model, source)] if chosen.fuse_model else []
    runners = [model_runner(loaded.model, "checkpoint", device)]
    runners += [model_runner(model, "fused", device) for model in fused]
    steps = len(runners) * math.ceil(len(dataset) / chosen.batch_size)
    with console.progress("evaluate", total=steps) as step:
        return evaluate_runners(
            runners,
            dataset,
            loaded.preprocessing,
            batch_size=chosen.batch_size,
            workers=chosen.workers,
            tell=step,
        )


def _fused(model: nn.Module, source: str) -> nn.Module:
    from finet_deploy.fuse import fuse

    if hasattr(model, "fuse_report"):
        raise UsageError("this checkpoint holds a fused network", where=source, do="leave --fuse out")
    return fuse(model)


def _evaluate_bundle(folder: Path, chosen: _Options, options: ModelOptions, console: Console) -> Evaluation:
    from finet_deploy.evaluate import evaluate_bundle, model_runner
    from finet_deploy.evaluate.runners import bundle_batch_size, bundle_preprocessing
    from finet_deploy.export import parse_formats, read_bundle

    if chosen.against is None and options != ModelOptions():
        raise UsageError("a bundle has its own network", where=str(folder), do="leave the options out")
    bundle = read_bundle(folder)
    formats = bundle.formats if chosen.formats is None else parse_formats(chosen.formats)
    size = bundle_batch_size(bundle_preprocessing(bundle))
    against, origin = [], None
    if chosen.against is not None:
        loaded = load_source(chosen.against, options, console)
        origin = loaded.origin
        against = [model_runner(loaded.model, "checkpoint")]
        _warn_of_another_checkpoint(bundle, origin, console)
    trained_on = bundle.manifest.source.dataset or (_trained_on(origin) if origin else None)
    dataset = _open(chosen, trained_on, str(folder))
    steps = (len(formats) + len(against)) * math.ceil(len(dataset) / size)
    with console.progress("evaluate", total=steps) as step:
        return evaluate_bundle(
            bundle,
            dataset,
            formats=formats,
            against=against,
            threads=chosen.threads,
            workers=chosen.workers,
            tell=step,
        )


def _open(chosen: _Options, trained_on: str | None, source: str) -> ImageDataset:
    from finet_deploy.data.opening import limited, open_dataset

    name = chosen.dataset or trained_on
    if name is None:
        raise UsageError(
            "nothing says which data set this was trained on", where=source, do="give --dataset NAME"
        )
    dataset_info(name)
    dataset = open_dataset(
        name,
        chosen.split,  # type: ignore[arg-type]
        folder=chosen.data,
        download=chosen.download,
        skip_bad_images=chosen.skip_bad_images,
    )
    return dataset if chosen.limit is None else limited(dataset, chosen.limit)


def _trained_on(origin: dict[str, Any]) -> str | None:
    name = (origin.get("training") or {}).get("dataset")
    return name if isinstance(name, str) and name in DATASETS else None


def _device(name: str) -> str:
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("no CUDA device here", do="leave --device out")
    return name


def _warn(origin: dict[str, Any], dataset: ImageDataset, console: Console) -> None:
    if origin.get("trained") is False or origin.get("kind") == "seeded":
        console.warn("the network is untrained: its accuracy is chance")
    classes: Sequence[Any] | None = (origin.get("training") or {}).get("classes")
    if isinstance(classes, list) and tuple(classes) != dataset.classes:
        other = next((a, b) for a, b in zip([*classes, None], [*dataset.classes, None]) if a != b)
        console.warn(
            f"classes have other names than in training: {other[0]!r} was trained, {other[1]!r} is here"
        )


def _warn_of_another_checkpoint(bundle: Bundle, origin: dict[str, Any], console: Console) -> None:
    exported = bundle.manifest.source.sha256
    if exported is None or exported != origin.get("sha256"):
        console.warn("the bundle was not exported from the file that --against names")


def _verdict(
    evaluation: Evaluation, min_top1: float | None, min_agreement: float | None, console: Console
) -> int:
    """0, or 1 when a limit was missed (said on stderr). A limit is compared with the share, not with its interval."""
    missed = []
    for row in evaluation.rows:
        accuracy = row.accuracy
        if accuracy.not_finite:
            console.warn(
                f"{row.name}: the scores of {accuracy.not_finite} images are not finite; counted as wrong"
            )
        if min_top1 is not None and accuracy.top1.value < min_top1:
            missed.append(f"top-1 of {row.name} is {accuracy.top1.value:.2%}, below {min_top1:.2%}")
    share = evaluation.unanimous / len(evaluation.labels)
    if min_agreement is not None and share < min_agreement:
        missed.append(f"{share:.2%} of the images agree, below {min_agreement:.2%}")
    for text in missed:
        console.warn(text)
    return 1 if missed else 0
