"""`finet-deploy app`."""

from __future__ import annotations

from pathlib import Path

import click

from finet_deploy.commands.console import Console, output_options
from finet_deploy.errors import UsageError

EPILOG = """\b
Examples:
  finet-deploy app build
  finet-deploy app build --abi arm64-v8a -o finet-bench.apk
"""


@click.group("app", epilog=EPILOG)
def command() -> None:
    """The Android app: the same visits with the libraries that apps ship."""


@command.command("build", epilog=EPILOG)
@click.option("--abi", "abis", multiple=True, metavar="NAME", help="arm64-v8a, x86_64 (default: both).")
@click.option("--stand-in", is_flag=True, help="No APK: the app's code for this machine's Java, for tests.")
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), metavar="FILE", help="Copy the APK here too."
)
@click.option("--force", is_flag=True, help="Build also when the cache has it.")
@output_options
def build(abis: tuple[str, ...], stand_in: bool, output: Path | None, force: bool, console: Console) -> None:
    """Fetch the libraries, compile, dex, pack, sign and check the APK; keep it in the cache, where `bench` finds it.

    Needs a JDK, Maven, npm, zipalign, apksigner and dexdump (Debian's packages), and pyelftools; no Android SDK.
    Signed with a debug key of your own, or with the key that FINET_APK_KEYSTORE, FINET_APK_KEYSTORE_PASSWORD and
    FINET_APK_KEY_ALIAS name.
    """
    import msgspec

    from finet_deploy.app.build import build_app
    from finet_deploy.app.manifest import read_manifest
    from finet_deploy.app.sources import ABIS
    from finet_deploy.app.standin import build_stand_in

    if stand_in:
        if output is not None or abis:
            raise UsageError("--stand-in makes no APK", do="leave --abi and --output out")
        folder = build_stand_in(force=force, progress=console.note)
        console.document({"path": str(folder)})
        console.result(str(folder))
        return
    folder = build_app(out=output, abis=abis or ABIS, force=force, progress=console.note)
    manifest = read_manifest(folder)
    console.document({"path": str(folder / manifest.apk), **msgspec.to_builtins(manifest)})
    console.result(str(folder / manifest.apk))
    console.note(f"{manifest.bytes / 1e6:.1f} MB, {manifest.signed_with} key, for {', '.join(manifest.abis)}")
    for note in manifest.notes:
        console.note(note)
