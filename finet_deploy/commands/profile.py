"""`finet-deploy profile`."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click

from finet_deploy.commands.console import Console, output_options
from finet_deploy.commands.labels import labelled_bundle
from finet_deploy.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from finet_deploy.export.bundle import Bundle
    from finet_deploy.profile.measured import ProfilingDevice
    from finet_deploy.profile.model import Profile

HOST = "host"
EPILOG = """\b
Examples:
  finet-deploy profile bundles/finet_large
  finet-deploy profile bundles/finet_large --device R58M12ABCDE --threads 4 -o profiles/phone
  finet-deploy profile bundles/finet_large --cost cortex-a76 -o results/profile
"""


@click.command("profile", epilog=EPILOG)
@click.argument("bundle", metavar="[LABEL=]BUNDLE")
@click.option(
    "--device", metavar="NAME", help="host (the default), an adb serial, tcp:HOST:PORT or usb:SERIAL."
)
@click.option(
    "--cost", "core", metavar="CORE",
    help="Instead of time: ARM instructions, counted under emulation; cortex-a53, -a55, -a72, -a76, -a78 or cortex-x1.",
)  # fmt: skip
@click.option("--runtimes", metavar="LIST", help="executorch,onnxruntime (default: those the bundle has).")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option(
    "--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Interleaved rounds."
)
@click.option("--summary", is_flag=True, help="By kind of operator only.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR",
    help="Write profile.json, .csv, .md and a picture of each runtime (SVG).",
)  # fmt: skip
@output_options
def command(
    bundle: str,
    device: str | None,
    core: str | None,
    runtimes: str | None,
    threads: int,
    rounds: int,
    summary: bool,
    output: Path | None,
    console: Console,
) -> None:
    """Where an inference spends its time, or its instructions, operator by operator.

    Time is measured by the native runner in interleaved rounds, beside what the core can do at best. The bundle's
    operators.json leads from the runtimes' operators to the network's modules.
    """
    import msgspec

    from finet_deploy.export.bundle import read_bundle
    from finet_deploy.profile.render import render_markdown
    from finet_deploy.profile.write import check_output, write_profiles

    names = [name.strip() for name in runtimes.split(",") if name.strip()] if runtimes is not None else None
    if names == []:
        raise UsageError("no runtime given", do="leave --runtimes out, or name some")
    if core is not None and (device is not None or threads != 1):
        raise UsageError(
            "--cost with --device or --threads", do="a count is of one emulated core: give --cost alone"
        )
    if output is not None:
        check_output(output)
    path, label = labelled_bundle(bundle)
    read = read_bundle(path)
    if core is not None:
        profiles = _count(read, core, names, label, console)
    else:
        profiles = _measure(read, device or HOST, names, label, threads, rounds, console)
    console.result(render_markdown(profiles, operators=not summary))
    console.document(msgspec.to_builtins(profiles))
    if output is not None:
        console.note(f"files    {', '.join(str(path) for path in write_profiles(profiles, output))}")


def _count(
    bundle: Bundle, core: str, runtimes: list[str] | None, label: str | None, console: Console
) -> list[Profile]:
    from finet_deploy.profile.emulated import profile_instructions

    with console.progress("count", total=len(runtimes or (1, 2))) as step:
        return profile_instructions(bundle, core_name=core, runtimes=runtimes, label=label, progress=step)


def _measure(
    bundle: Bundle,
    device_name: str,
    runtimes: list[str] | None,
    label: str | None,
    threads: int,
    rounds: int,
    console: Console,
) -> list[Profile]:
    from finet_deploy.profile.measured import profile_time
    from finet_deploy.runner.targets import NATIVE_RUNTIMES

    total = rounds * len(runtimes or [name for name in NATIVE_RUNTIMES if name in _runtimes(bundle)])
    with (
        _device(device_name, console) as device,
        tempfile.TemporaryDirectory(prefix="finet-deploy-profile-") as folder,
        console.progress("profile", total=total) as step,
    ):
        return profile_time(
            bundle,
            device=device,
            folder=Path(folder),
            threads=threads,
            runtimes=runtimes,
            supported=NATIVE_RUNTIMES,
            label=label,
            rounds=rounds,
            progress=step,
        )


def _runtimes(bundle: Bundle) -> set[str]:
    return {artifact.runtime for artifact in bundle.manifest.artifacts.values()}


@contextlib.contextmanager
def _device(name: str, console: Console) -> Iterator[ProfilingDevice]:
    if name == HOST:
        from finet_deploy.profile.host import HostProfiler

        yield HostProfiler()
        return
    from finet_deploy.devices.adb import open_connection
    from finet_deploy.profile.phone import PhoneProfiler

    phone = PhoneProfiler(open_connection(name, notice=console.note), note=console.note)
    with phone:
        yield phone
