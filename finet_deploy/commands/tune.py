"""`finet-deploy tune`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from finet_deploy.commands.console import Console, output_options
from finet_deploy.commands.source import ModelOptions, is_checkpoint, load_source, model_options
from finet_deploy.commands.tune_output import PRECISION_NAMES, describe, show
from finet_deploy.errors import UsageError, suggest

if TYPE_CHECKING:
    from finet_deploy.export import Bundle
    from finet_deploy.tune.build import Network
    from finet_deploy.tune.place import Place
    from finet_deploy.tune.search import Asked

DTYPES = {name: dtype for dtype, name in PRECISION_NAMES.items()}

EPILOG = """\b
Examples:
  finet-deploy tune finet_large --device host -o tuned/host
  finet-deploy tune trained.safetensors --device R5CT10XXXXX --calibrate photos/ --budget 30m -o tuned/phone
  finet-deploy tune finet_large --device cortex-a53 --precisions fp32 -o tuned/a53
  finet-deploy tune bundles/finet_large --threads 1,2,4 -o tuned/threads
  finet-deploy tune finet_large --device host -o tuned/host --resume
"""


@click.command("tune", epilog=EPILOG)
@click.argument("source", metavar="NAME|CHECKPOINT|BUNDLE")
@click.option(
    "--device", default="host", show_default=True, metavar="NAME",
    help="host, an adb serial, tcp:HOST:PORT, usb:SERIAL, or an emulated core (cortex-a53, -a55, -a72, -a76, -a78, "
    "cortex-x1), whose instructions are counted.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Folder for the winning bundle and the tables."
)
@click.option(
    "--budget", default="10m", show_default=True, metavar="TIME", help="For all of it: 90s, 10m, 1h."
)
@click.option(
    "--min-sqnr", type=click.FloatRange(0, min_open=True), metavar="DB",
    help="int8: least signal-to-noise ratio on held-out images (default: export's).",
)  # fmt: skip
@click.option(
    "--runtimes", metavar="LIST", help="executorch, onnxruntime, torch_mobile (default: the first two)."
)
@click.option(
    "--precisions", default="fp32,int8", show_default=True, metavar="LIST", help="The default's first."
)
@click.option("--threads", metavar="LIST", help="Default: powers of two up to all CPUs.")
@click.option("--calibrate", metavar="FOLDER|NAME", help="int8: your images, or photos or digits.")
@click.option("--runner", type=click.Choice(["python", "native", "app"]), help="As of bench.")
@click.option("--emulated", is_flag=True, help="Phones: this one is emulated; every table says so.")
@click.option("--resume", is_flag=True, help="Go on with the unfinished search of this output folder.")
@click.option("--dry-run", is_flag=True, help="Say what would be searched, and stop.")
@model_options
@output_options
def command(
    source: str,
    device: str,
    output: Path | None,
    budget: str,
    min_sqnr: float | None,
    runtimes: str | None,
    precisions: str,
    threads: str | None,
    calibrate: str | None,
    runner: str | None,
    emulated: bool,
    resume: bool,
    dry_run: bool,
    options: ModelOptions,
    console: Console,
) -> None:
    """Search how to run a network fastest on a device: runtime, precision, passes, threads and kinds of cores.

    Successive halving: all candidates are measured briefly, the best third again and longer, and the last one against
    the default bundle in fresh interleaved rounds. The default is kept unless it is beaten by more than noise. The
    output folder appears when all is done; until then there is OUTPUT.unfinished, and --resume.
    """
    from finet_deploy.tune.budget import Budget, parse_seconds

    seconds = parse_seconds(budget)
    dtypes = _dtypes(precisions)
    counts = _threads(threads)
    if output is None and not dry_run:
        raise UsageError("no output folder", do="give -o FOLDER")
    given = _given_bundle(source)
    if given is None and not is_checkpoint(source):
        options.config(source)  # a wrong name is told before anything is opened
    clock = Budget(seconds)
    if output is not None:
        from finet_deploy.tune.folder import check_target

        check_target(output, resume)
    with _place(device, runner, emulated, console) as place:
        asked = _asked(
            source, given, place, dtypes, counts, min_sqnr, runtimes, calibrate, resume, options, console
        )
        counts = place.thread_counts(counts)
        if dry_run or output is None:
            describe(asked, place, counts, seconds, given is not None, console)
            return
        from finet_deploy.tune.search import tune

        if given is not None:
            console.note("a bundle is compared as it is: to search precisions and passes, name the network")
        result = tune(
            asked,
            given or (lambda: _network(source, calibrate, "int8" in dtypes, options, console)),
            place,
            output,
            budget=clock,
            steps=console.progress,
            note=console.note,
        )
    show(result, output, console)


def _given_bundle(source: str) -> Bundle | None:
    """The bundle, where SOURCE is a folder. UsageError or FinetDeployError when the folder is none."""
    if not Path(source).is_dir():
        return None
    from finet_deploy.export import read_bundle

    return read_bundle(source)


def _words(text: str, what: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if not words:
        raise UsageError(f"no {what} given", do=f"leave --{what} out, or name some")
    return list(dict.fromkeys(words))


def _dtypes(text: str) -> tuple[str, ...]:
    words = _words(text, "precisions")
    for word in words:
        if word not in DTYPES:
            do = suggest(word, DTYPES) or f"use {', '.join(DTYPES)}"
            raise UsageError(f"unknown precision {word!r}", do=do)
    return tuple(DTYPES[word] for word in words)


def _threads(text: str | None) -> tuple[int, ...] | None:
    if text is None:
        return None
    words = _words(text, "threads")
    wrong = [word for word in words if not (word.isascii() and word.isdigit() and 1 <= int(word[:6]) <= 1024)]
    if wrong:
        raise UsageError(f"--threads {wrong[0]!r} is not a number of threads", do="give numbers: 1,2,4")
    return tuple(int(word) for word in words)


@contextlib.contextmanager
def _place(device: str, runner: str | None, emulated: bool, console: Console) -> Iterator[Place]:
    from finet_deploy.api.devices import DeviceOptions, device_names, open_device
    from finet_deploy.runner.emulate import CORES
    from finet_deploy.tune.place import Place

    if device in CORES:
        if runner not in (None, "native") or emulated:
            raise UsageError(
                "--runner and --emulated with a core's name", do="leave them out: it is emulated"
            )
        yield Place(core=device)
        return
    if device.startswith("cortex"):
        raise UsageError(f"unknown core {device!r}", do=suggest(device, CORES) or f"use {', '.join(CORES)}")
    if device == "all":
        raise UsageError("--device all", do="a search is of one device: name it")
    (name,) = device_names((device,), console)
    chosen = DeviceOptions(runner=runner, emulated=emulated, pinned=True, clean=False)
    with open_device(name, chosen, console) as opened:
        opened.info()  # a phone that is not there is told before minutes of exporting
        yield Place(device=opened)


def _asked(
    source: str,
    given: Bundle | None,
    place: Place,
    dtypes: tuple[str, ...],
    threads: tuple[int, ...] | None,
    min_sqnr: float | None,
    runtimes: str | None,
    calibrate: str | None,
    resume: bool,
    options: ModelOptions,
    console: Console,
) -> Asked:
    import dataclasses

    from finet_deploy.tune.search import Asked
    from finet_deploy.verify import Limits

    if "int8" not in dtypes and (calibrate is not None or min_sqnr is not None):
        raise UsageError("--calibrate and --min-sqnr are for int8", do="add int8 to --precisions")
    plain = {key: str(v) if isinstance(v, Path) else v for key, v in dataclasses.asdict(options).items()}
    identity: dict[str, Any] = {"source": source, "calibrate": calibrate, "options": plain}
    if is_checkpoint(source):
        from finet_deploy.files import sha256_file

        identity["sha256"] = sha256_file(source)
    if given is not None:
        identity["weights_sha256"] = given.manifest.weights_sha256
    return Asked(
        subject=Path(source).name
        if given is not None or is_checkpoint(source)
        else options.config(source).title,
        identity=identity,
        formats=_formats(runtimes, given, place, console),
        dtypes=dtypes,
        threads=threads,
        min_sqnr_db=Limits().int8_sqnr_db if min_sqnr is None else min_sqnr,
        resume=resume,
    )


def _formats(runtimes: str | None, given: Bundle | None, place: Place, console: Console) -> tuple[str, ...]:
    """The wanted runtimes' formats; else those of the bundle, or with int8 files, that the place has."""
    from finet_deploy.export.request import PRECISIONS
    from finet_deploy.runtimes import FORMATS, available_runtimes, require_runtime

    by_runtime = {runtime: fmt for fmt, runtime in FORMATS.items()}
    known = [FORMATS[fmt] for fmt in (given.formats if given is not None else FORMATS)]
    words = None if runtimes is None else _words(runtimes, "runtimes")
    for word in words or ():
        if word not in known:
            do = suggest(word, known) or f"use {', '.join(known)}"
            raise UsageError(f"no candidate for runtime {word!r}", do=do)
        require_runtime(word)
    default = [FORMATS[fmt] for fmt in (given.formats if given is not None else PRECISIONS["int8"])]
    chosen = []
    for name in words or default:
        if place.runtimes is not None and name not in place.runtimes:
            if words:
                raise UsageError(f"{place.name} has no {name}", do=f"it has {', '.join(place.runtimes)}")
            console.note(f"{name} is left out: {place.name} does not have it")
        elif available_runtimes()[name] is None and given is None:
            console.note(f"{name} is left out: it is not installed")
        else:
            chosen.append(by_runtime[name])
    if not chosen:
        raise UsageError("no runtime is left to search", do="install one: pip install 'finet-deploy[all]'")
    return tuple(chosen)


def _network(
    source: str, calibrate: str | None, int8: bool, options: ModelOptions, console: Console
) -> Network:
    from finet_deploy.commands.export import calibration_for
    from finet_deploy.tune.build import Network

    loaded = load_source(source, options, console)
    calibration = calibration_for(calibrate, loaded, options, console) if int8 else None
    return Network(loaded.model, loaded.inputs, loaded.preprocessing, calibration)
