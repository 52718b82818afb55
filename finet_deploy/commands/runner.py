"""`finet-deploy runner`."""

from __future__ import annotations

from pathlib import Path

import click

from finet_deploy.commands.console import Console, output_options

EPILOG = """\b
Examples:
  finet-deploy runner build
  finet-deploy runner build --target aarch64 -o runner-aarch64
  finet-deploy runner show --target aarch64
"""


@click.group("runner", epilog=EPILOG)
def command() -> None:
    """The native runner: a C++ program with its own libraries, for this machine and for phones."""


@command.command("build", epilog=EPILOG)
@click.option("--target", metavar="NAME", help="aarch64 or x86_64 (default: this machine's).")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="DIR", help="Copy the folder here too."
)
@click.option("--force", is_flag=True, help="Build also when the cache has it.")
@output_options
def build(target: str | None, output: Path | None, force: bool, console: Console) -> None:
    """Fetch the runtimes' wheels, compile, check that the folder stands alone, keep it in the cache.

    Needs g++ (for phones g++-aarch64-linux-gnu) and nlohmann-json3-dev, Debian's packages. A released wheel of
    finet-deploy has the folder inside.
    """
    from finet_deploy.runner.build import build_runner
    from finet_deploy.runner.targets import host_target

    folder = build_runner(target or host_target(), out=output, force=force, progress=console.note)
    _tell(folder, console)


@command.command("show", epilog=EPILOG)
@click.option("--target", metavar="NAME", help="aarch64 or x86_64 (default: this machine's).")
@output_options
def show(target: str | None, console: Console) -> None:
    """Where the runner's folder is and what is in it, after checking every file."""
    from finet_deploy.runner import host_target, runner_folder

    _tell(runner_folder(target or host_target()), console)


def _tell(folder: Path, console: Console) -> None:
    import msgspec

    from finet_deploy.runner.manifest import read_manifest

    manifest = read_manifest(folder)
    console.document({"path": str(folder), **msgspec.to_builtins(manifest)})
    console.result(str(folder))
    size = sum(entry.bytes for entry in manifest.files)
    versions = ", ".join(f"{name} {version}" for name, version in manifest.versions.items())
    console.note(f"{manifest.target}: {len(manifest.files)} files, {size / 1e6:.1f} MB, {versions}")
