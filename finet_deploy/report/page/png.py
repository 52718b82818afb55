"""Pictures as PNG, drawn by resvg from the very SVG that is saved."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from finet_deploy.errors import FinetDeployError
from finet_deploy.report.page.colours import FONTS

__all__ = ["png_drawer"]

NAME = "Aileron"  # of that font
ZOOM = 2.0  # pixels a unit: sharp in print and on dense screens


@contextlib.contextmanager
def png_drawer() -> Iterator[Callable[[str], bytes]]:
    """A function from SVG to PNG, twice the picture's size in units. `FinetDeployError` when resvg is not installed."""
    try:
        import resvg_py
    except ImportError as error:
        raise FinetDeployError(
            "plots are saved as PNG by resvg-py, which is not installed",
            do="pip install 'finet-deploy[report]', or leave -o out: the page goes to standard output",
        ) from error
    from PIL import ImageFont

    # Pillow's own font: text must not vanish on a machine without fonts, nor look different on each. For signs that it
    # lacks: the system's.
    data = getattr(ImageFont.load_default(12), "font_bytes", b"")  # b"": Pillow without FreeType
    with tempfile.TemporaryDirectory(prefix="finet-deploy-font-") as folder:
        font = Path(folder) / "font.otf"
        font.write_bytes(data)

        def draw(svg: str) -> bytes:
            first = svg.replace(f"font-family:{FONTS}", f"font-family:{NAME},{FONTS}", 1)
            return bytes(resvg_py.svg_to_bytes(svg_string=first, zoom=ZOOM, font_files=[str(font)]))

        yield draw
