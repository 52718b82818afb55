"""Bundles with labels, as the command line names them."""

from __future__ import annotations

from pathlib import Path

__all__ = ["labelled_bundle"]


def labelled_bundle(text: str) -> tuple[Path, str | None]:
    """`LABEL=BUNDLE` or `BUNDLE`: the bundle's path and its label, if it was given one.

    A path that exists is never cut at its own `=`; a label may hold one when what follows is a bundle.
    """
    if "=" not in text or Path(text).exists():
        return Path(text), None
    cuts = [at for at, letter in enumerate(text) if letter == "=" and at > 0]
    for at in cuts:
        if Path(text[at + 1 :]).exists():
            return Path(text[at + 1 :]), text[:at]
    return (Path(text[cuts[0] + 1 :]), text[: cuts[0]]) if cuts else (Path(text), None)
