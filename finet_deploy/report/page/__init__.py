"""One page of HTML from run records: no network, no file beside it, the same bytes for the same records."""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from finet_deploy.bench.records import Run
from finet_deploy.files import atomic_write_bytes, atomic_write_text
from finet_deploy.report.page.assemble import Content, assemble
from finet_deploy.report.page.colours import page_css
from finet_deploy.report.page.png import png_drawer

if TYPE_CHECKING:
    from jinja2 import Environment

__all__ = ["render_figures", "render_html", "templates", "write_figures"]


def render_html(runs: Sequence[Run]) -> str:
    """The page for these runs. Raises what reading their folders raises."""
    return _html(assemble(runs))


def render_figures(runs: Sequence[Run]) -> dict[str, str]:
    """The page's plots as SVG files of their own: name without ending -> text."""
    return {picture.name: picture.file() for picture in assemble(runs).pictures}


def write_figures(runs: Sequence[Run], out: Path) -> tuple[Path, ...]:
    """Write every plot of the page into `out`, as SVG and as PNG; returns the paths.

    `FinetDeployError` when the package that draws PNG is not there: before anything is written.
    """
    paths = []
    with png_drawer() as to_png:
        for name, svg in render_figures(runs).items():
            vector, pixels = out / f"{name}.svg", out / f"{name}.png"
            atomic_write_text(vector, svg)
            atomic_write_bytes(pixels, to_png(svg))
            paths += [vector, pixels]
    return tuple(paths)


@functools.cache
def templates() -> Environment:
    """The page's templates. Kept: it takes a tenth of a second to compile them."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("finet_deploy.report.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _html(content: Content) -> str:
    from markupsafe import Markup

    # Ours, not from records: neither may be escaped, and each is named in the policy by its hash.
    style, script = page_css() + _asset("page.css"), _asset("page.js")
    return (
        templates()
        .get_template("page.html")
        .render(
            page=content,
            axes=list(dict.fromkeys(name for choice in content.versus for name in choice.pictures)),
            policy=_policy(style, script),
            style=Markup(style),
            script=Markup(script),
        )
    )


def _asset(name: str) -> str:
    return resources.files("finet_deploy.report.page").joinpath("templates", name).read_text("utf-8")


def _policy(style: str, script: str) -> str:
    """What the page may do: use its own style and script. Nothing is fetched, sent, framed or submitted."""
    style_hash, script_hash = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)
    )
    return (
        f"default-src 'none'; style-src 'sha256-{style_hash}'; script-src 'sha256-{script_hash}'; "
        "base-uri 'none'; form-action 'none'"
    )
