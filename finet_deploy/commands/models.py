"""`finet-deploy models`."""

from __future__ import annotations

import click

from finet_deploy import zoo
from finet_deploy.commands.console import Console, output_options
from finet_deploy.commands.source import ModelOptions, model_options
from finet_deploy.names import describe, known_names, resolve_config

EPILOG = """\b
Examples:
  finet-deploy models
  finet-deploy models finet_large --num-groups 8 --se
  finet-deploy models --library timm
"""


@click.command("models", epilog=EPILOG)
@click.argument("name", required=False)
@click.option(
    "--library", type=click.Choice(["torchvision", "timm"]), help="List that library's classifiers."
)
@model_options
@output_options
def command(name: str | None, library: str | None, options: ModelOptions, console: Console) -> None:
    """List the networks by name, or describe the network NAME: parameters, multiply-adds, input."""
    if name is not None:
        _describe(name, options, console)
        return
    if library is not None:
        listed = {f"{library}:{item}": "" for item in zoo.library_models(library)}
    else:
        listed = {item: describe(resolve_config(item)) for item in known_names()}
    console.document([{"name": item, "description": text} for item, text in listed.items()])
    width = max(map(len, listed))
    for item, text in listed.items():
        console.result(f"{item:<{width}}  {text}".rstrip())
    if library is None:
        console.result(
            f"{'torchvision:<name>, timm:<name>':<{width}}  any classifier of theirs (--library lists them)"
        )


def _describe(name: str, options: ModelOptions, console: Console) -> None:
    from finet_deploy.export import count_macs
    from finet_deploy.fuse import fuse

    config = options.config(name)
    model = zoo.create_from_config(config, seed=options.seed).eval()
    size = config.input_size
    facts = {
        "name": name,
        "description": describe(config),
        "model_config": config.to_json_object(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "macs": count_macs(fuse(model), (1, 3, size, size)),
        "input": [1, 3, size, size],
    }
    console.document(facts)
    console.result(f"{config.title}: {facts['description']}")
    console.result(f"parameters    {facts['parameters']:,}")
    console.result(f"multiply-adds {facts['macs']:,} (fused, one image)")
    console.result(f"input         (1, 3, {size}, {size}), classes {config.num_classes}")
