"""`finet-deploy verify`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from finet_deploy.commands.console import Console, output_options
from finet_deploy.commands.source import ModelOptions, load_source, model_options
from finet_deploy.errors import FinetDeployError, UsageError
from finet_deploy.files import atomic_write_text

if TYPE_CHECKING:
    from finet_deploy.verify import Certificate

EPILOG = """\b
Examples:
  finet-deploy verify bundles/finet_large
  finet-deploy verify trained.safetensors --images photos/ --junit certificate.xml
  finet-deploy verify bundles/finet_large --sarif verify.sarif
  finet-deploy verify timm:mobileone_s0 --json
"""


@click.command("verify", epilog=EPILOG)
@click.argument("source")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the certificate as JSON.")
@click.option("--junit", type=click.Path(path_type=Path), help="Write the certificate as JUnit XML.")
@click.option(
    "--sarif", type=click.Path(path_type=Path), help="Write what failed as SARIF 2.1.0, for code hosts."
)
@model_options
@output_options
def command(
    source: str,
    output: Path | None,
    junit: Path | None,
    sarif: Path | None,
    options: ModelOptions,
    console: Console,
) -> int:
    """Prove that SOURCE is still the same function after fusing; exit 1 if it is not.

    SOURCE is a bundle's folder (its files are run by their own runtimes again), a checkpoint, or a network's
    name.
    """
    from finet_deploy.verify import summary_lines

    if Path(source).is_dir():
        certificate, damage = _verify_bundle(Path(source), options)
    else:
        certificate, damage = _verify_model(source, options, console), None
    _write_reports(certificate, source, output, junit, sarif)
    if damage is not None:
        raise damage
    for line in summary_lines(certificate, explain=not console.quiet):
        console.result(line)
    console.document(certificate.to_json_object())
    return 0 if certificate.passed else 1


def _write_reports(
    certificate: Certificate, source: str, output: Path | None, junit: Path | None, sarif: Path | None
) -> None:
    if output is not None:
        atomic_write_text(output, json.dumps(certificate.to_json_object(), indent=2) + "\n")
    if junit is not None:
        from finet_deploy.verify import junit_xml

        atomic_write_text(junit, junit_xml(certificate))
    if sarif is not None:
        from finet_deploy.verify.sarif import Certified, repository_root, sarif_log

        path = Path(source)
        location = path / "manifest.json" if path.is_dir() else path if path.is_file() else None
        written = list(path.glob("model.*")) if path.is_dir() else []
        files = {f"artifact/{item.suffix[1:]}": item.name for item in written}
        found = Certified(certificate, location, files)
        root = repository_root(Path.cwd())
        atomic_write_text(sarif, json.dumps(sarif_log([found], root), indent=1) + "\n")


def _verify_bundle(folder: Path, options: ModelOptions) -> tuple[Certificate, FinetDeployError | None]:
    """The certificate; of a bundle too damaged to be run one that says so, with the error."""
    from finet_deploy.export import read_bundle, verify_bundle
    from finet_deploy.verify import Certificate, Check

    if options != ModelOptions():
        raise UsageError(
            "a bundle has its own network and inputs", where=str(folder), do="leave the options out"
        )
    try:
        return verify_bundle(read_bundle(folder)), None
    except UsageError:
        raise
    except FinetDeployError as error:
        check = Check(name="bundle/files", stage="bundle", passed=False, message=str(error))
        return Certificate(subject=folder.name, expected=(check.name,), checks=(check,)), error


def _verify_model(source: str, options: ModelOptions, console: Console) -> Certificate:
    from finet_deploy.verify import verify

    loaded = load_source(source, options, console)
    return verify(loaded.model, inputs=loaded.inputs)
