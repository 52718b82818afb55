"""The command group. Commands load on use: `finet-deploy --help` imports click and nothing heavier."""

from __future__ import annotations

import importlib

import click

from finet_deploy import __version__
from finet_deploy.errors import FinetDeployError, suggest

__all__ = ["group", "run"]

# name -> (module, what it does); the group's help is printed from here without importing the commands.
COMMANDS = {
    "models": ("models", "List the networks by name, or describe one."),
    "train": ("train", "Train a network by a recipe, into a checkpoint for the other commands."),
    "evaluate": ("evaluate", "Top-1 and top-5 of a checkpoint or a bundle, with intervals."),
    "fuse": ("fuse", "Fold all normalization of a network into its convolutions."),
    "verify": ("verify", "Prove that a fused network, or a bundle, is still the same function."),
    "guard": ("guard", "Check bundles as a repository's guard: what must not be merged fails."),
    "export": ("export", "Fuse, prove and write a network for mobile runtimes as one bundle."),
    "bench": ("bench", "Measure bundles: images per second, with intervals."),
    "devices": ("devices", "Phones on adb: what is there, in what state, and what to do about it."),
    "runner": ("runner", "Build the native runner for this machine or for ARM phones."),
    "app": ("app", "Build the Android app, without an Android SDK."),
    "cost": ("cost", "ARM instructions per inference, counted under emulation. A cost, not a speed."),
    "profile": ("profile", "Where an inference spends its time, operator by operator."),
    "tune": ("tune", "Search runtime, precision, passes, threads and cores for a device."),
    "reproduce": ("reproduce", "Run the grid of a paper's table; the table beside the paper's."),
    "compare": ("compare", "What became faster or slower between runs, and how sure that is."),
    "report": ("report", "Tables from measured runs, with the paper's beside them."),
}

EXAMPLES = """\b
Examples:
  finet-deploy train --recipe digits
  finet-deploy export finet_large --fuse --formats pte,onnx,ptl -o bundles/finet_large
  finet-deploy verify bundles/finet_large
  finet-deploy bench --suite table4 --device host
  finet-deploy report runs/table4-demo
"""


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        return importlib.import_module(f"finet_deploy.commands.{COMMANDS[name][0]}").command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            hint = suggest(args[0], COMMANDS) or f"there are {', '.join(COMMANDS)}"
            raise click.UsageError(f"no command {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=_LazyGroup, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="finet-deploy")
def group() -> None:
    """From a trained network to evidence on a phone: fuse, prove, export, measure, report."""


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit status; errors are one line on stderr, without a traceback."""
    try:
        status = group.main(arguments, prog_name="finet-deploy", standalone_mode=False)
    except click.exceptions.Abort as error:
        raise (error.__cause__ or KeyboardInterrupt()) from None
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "finet-deploy"
        click.echo(f"finet-deploy: error: {error.format_message()} (see `{command} --help`)", err=True)
        return error.exit_code
    except FinetDeployError as error:
        click.echo(f"finet-deploy: error: {error}", err=True)
        return error.exit_code
    except MemoryError:
        click.echo("finet-deploy: error: out of memory; give fewer images or a smaller network", err=True)
        return 1
    return status if isinstance(status, int) else 0
