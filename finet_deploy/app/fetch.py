"""The libraries on this machine: fetched by mvn and npm, checked by hash, kept in the cache."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from xml.sax.saxutils import escape

from finet_deploy.app.libraries import Library
from finet_deploy.app.tools import require, run
from finet_deploy.errors import FinetDeployError
from finet_deploy.files import explain_os_error, sha256_file
from finet_deploy.runner.folder import cache_folder

__all__ = ["fetch"]

COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy"
POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>org.finetdeploy</groupId><artifactId>fetch</artifactId><version>1</version><packaging>pom</packaging>
<build><plugins><plugin><groupId>org.apache.maven.plugins</groupId><artifactId>maven-dependency-plugin</artifactId>
<configuration><outputDirectory>{folder}</outputDirectory><artifactItems>{items}</artifactItems></configuration>
</plugin></plugins></build></project>
"""
ITEM = (
    "<artifactItem><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version><type>{}</type>"
    "<destFileName>{}</destFileName></artifactItem>"
)
AGAIN = "check that its registry answers, then try again"


def fetch(wanted: Iterable[Library], progress: Callable[[str], None]) -> dict[str, Path]:
    """Name -> file, downloaded unless the cache has it.

    Raises FinetDeployError when mvn, npm or a library cannot be had, or a download is not the pinned file.
    """
    folder = cache_folder() / "app" / "libraries"
    wanted = tuple(wanted)
    missing = [library for library in wanted if not (folder / library.file_name).is_file()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".fetch.") as name:
            scratch = Path(name)
            _fetch_maven([library for library in missing if library.source == "maven"], scratch, progress)
            _fetch_npm([library for library in missing if library.source == "npm"], scratch, progress)
            for library in missing:
                file = scratch / library.file_name
                _check(library, file)
                os.replace(file, folder / library.file_name)
    except OSError as error:
        raise explain_os_error(error, "keep a library", folder) from error
    return {library.name: folder / library.file_name for library in wanted}


def _check(library: Library, file: Path) -> None:
    found = sha256_file(file)
    if found != library.sha256:
        raise FinetDeployError(
            f"{library.coordinate} is not the file that this build was checked with (SHA-256 {found})",
            where=library.source,
            do="do not use it",
        )


def _fetch_maven(wanted: list[Library], folder: Path, progress: Callable[[str], None]) -> None:
    if not wanted:
        return
    progress(f"fetch {len(wanted)} libraries with mvn")
    items = [ITEM.format(*library.coordinate.split(":"), library.file_name) for library in wanted]
    (folder / "pom.xml").write_text(POM.format(folder=escape(str(folder)), items="".join(items)))
    run([require("mvn"), "-B", "-q", "-f", folder / "pom.xml", COPY], "fetch the libraries", do=AGAIN)


def _fetch_npm(wanted: list[Library], folder: Path, progress: Callable[[str], None]) -> None:
    for library in wanted:
        progress(f"fetch {library.coordinate} with npm")
        with tempfile.TemporaryDirectory(dir=folder) as name:
            command = [require("npm"), "pack", library.coordinate, "--silent", "--pack-destination", name]
            run(command, f"fetch {library.coordinate}", do=AGAIN)
            packed = list(Path(name).glob("*.tgz"))
            if len(packed) != 1:
                raise FinetDeployError(f"npm left no file for {library.coordinate}", do=AGAIN)
            os.replace(packed[0], folder / library.file_name)
