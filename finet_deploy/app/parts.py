"""What a library holds: jars and native libraries, taken out of jar, AAR or npm archives."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path

from finet_deploy.app.libraries import Library
from finet_deploy.errors import FinetDeployError

__all__ = ["Archive"]

MAX_MEMBER_BYTES = 512 << 20
SELF = "."


class Archive:
    """A fetched library. Its bytes were checked by hash; sizes are bounded all the same."""

    def __init__(self, library: Library, file: Path) -> None:
        self.library, self._file = library, file
        self._inner: bytes | None = None

    def classes(self) -> bytes | None:
        """The jar whose classes belong to the app."""
        return self._jar(self.library.classes)

    def declared(self) -> bytes | None:
        """The jar with which the native libraries were shipped, where the app takes its classes from elsewhere."""
        return self._jar(self.library.declares)

    def native(self, abi: str) -> dict[str, bytes]:
        """File name -> native library for `abi`."""
        paths = [path.format(abi=abi) for path in self.library.native]
        return {path.rsplit("/", 1)[-1]: self.read(path) for path in paths}

    def licences(self) -> dict[str, bytes]:
        """File name -> text, out of the download itself."""
        return {
            f"{self.library.name}-{path.rsplit('/', 1)[-1].removesuffix('.txt')}.txt": _member(
                self._file.read_bytes(), self._file.name, path
            )
            for path in self.library.licence_files
        }

    def read(self, member: str) -> bytes:
        """A member of the archive that the library means; FinetDeployError when it is not there."""
        if self.library.archive is None:
            return _member(self._file.read_bytes(), self._file.name, member)
        if self._inner is None:
            self._inner = _member(self._file.read_bytes(), self._file.name, self.library.archive)
        return _member(self._inner, self.library.archive, member)

    def _jar(self, member: str | None) -> bytes | None:
        if member is None:
            return None
        return self._file.read_bytes() if member == SELF else self.read(member)


def _member(data: bytes, name: str, member: str) -> bytes:
    try:
        if name.endswith(".tgz"):
            with tarfile.open(fileobj=io.BytesIO(data), mode="r:gz") as archive:
                stream = archive.extractfile(member)
                found = b"" if stream is None else stream.read(MAX_MEMBER_BYTES + 1)
        else:
            with zipfile.ZipFile(io.BytesIO(data)) as zipped, zipped.open(member) as stream:
                found = stream.read(MAX_MEMBER_BYTES + 1)
    except (KeyError, tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise FinetDeployError(f"no {member}: {error}", where=name, do="delete it from the cache") from error
    if not 0 < len(found) <= MAX_MEMBER_BYTES:
        raise FinetDeployError(f"{member} has {len(found)} bytes", where=name, do="delete it from the cache")
    return found
